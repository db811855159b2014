from service.telemetry.reference import EXAMPLES, PAGE, families, page
from tests.service.telemetry.test_metrics import CONTRACT, OF_LANGUAGE_MODELS


def test_the_committed_page_is_what_the_code_makes():
    assert PAGE.read_text() == page(), "run: python -m service.telemetry.reference"


def test_it_has_every_metric_of_the_contract_and_its_labels():
    described = {family.name: set(family.labels) for family in families()}
    contract = {
        name.removesuffix("_bucket"): labels - {"le"} for name, labels in (CONTRACT | OF_LANGUAGE_MODELS).items()
    }
    assert {**contract, "sluice_build_info": {"version", "kernels", "instruction_set"}} == described


def test_every_metric_says_what_it_means():
    assert all(family.meaning.endswith(".") for family in families())


def test_each_example_is_about_its_metric_and_none_is_left_over():
    assert set(EXAMPLES) == {family.name for family in families()}
    assert all(name in example for name, example in EXAMPLES.items())
