"""The models that `sluice bench slo` can put under load: what is sent to each, how an answer is scored, and how much
quality may be spent."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.benchmarks.slo_plan import Floor, floor_below_dense
from loadtest.recordings import Recordings, menus
from loadtest.texts import Texts, dense_embeddings
from loadtest.workload import Images, Parameters, Workload
from models.gating.profile import Profile
from models.zoo import catalog, fashion_data, speech_family, text_data, text_family
from models.zoo.fashion_data import LabelledImages
from service.control.slo import SLO
from service.control.speech_slo import SpeechSLO


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under load. `workload` makes its requests, with the same parameters in each; `score` says what the score
    of an answer is. `slo` is of the kind that the model has."""

    model: str
    floor: Floor
    score: str
    workload: Callable[[Parameters], Workload]
    slo: type[SLO] = SLO


def subject_of(model: str, data: Path | None, sample: bool, points: float, quality_floor: float) -> Subject:
    """A model by its name or folder. The image network, which has labels, may lose so many `points` of accuracy; the
    others may go as far as the `quality_floor`. `data` is of the user's own: a folder of images, or a file of texts.

    Raises `ValueError` for a model that cannot be put under load, and what finding it or its data raises.
    """
    if model == "fashion":
        images = fashion_data.sample() if sample else fashion_data.test(data)
        return images_of(catalog.load(model).profile, images, points)
    family, name = catalog.family_of(model), catalog.served_name(model)
    if family is text_family:
        texts = text_data.sample() if data is None else text_data.read_lines(data)
        wanted = dense_embeddings(model, texts)
        floor = floor_of(catalog.load(model).profile, quality_floor)
        return Subject(name, floor, "cosine to dense", lambda parameters: Texts(texts, wanted, name, parameters))
    if family is speech_family:
        clips, floor = menus(), floor_of(catalog.load(model).profile, quality_floor)
        return Subject(name, floor, "1 − word errors", lambda own: Recordings(clips, name, own), SpeechSLO)
    raise ValueError(f"{model!r} cannot be put under this load; fashion, models of embeddings and of speech can")


def images_of(profile: Profile, data: LabelledImages, points: float) -> Subject:
    """The image network. Raises `ValueError` for a profile without accuracy."""
    return Subject(
        "fashion", floor_below_dense(profile, points), "accuracy", lambda parameters: Images(data, parameters)
    )


def floor_of(profile: Profile, quality: float) -> Floor:
    """A quality floor as a server takes it, and the level up to which it lets the dial go."""
    return Floor(quality, profile.highest_level(quality), None)
