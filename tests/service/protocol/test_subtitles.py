from service.protocol.subtitles import as_srt, as_vtt

SEGMENTS = [
    {"start": 0.0, "end": 1.5, "text": " Hello."},
    {"start": 3599.9996, "end": 36_000.25, "text": " a < b & c\n\n--> d"},
]


def test_srt():
    assert as_srt(SEGMENTS) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:00:00,000 --> 10:00:00,250\na < b & c -> d\n\n"
    )
    assert as_srt([]) == ""


def test_vtt():
    assert as_vtt(SEGMENTS) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello.\n\n01:00:00.000 --> 10:00:00.250\na &lt; b &amp; c -&gt; d\n\n"
    )
