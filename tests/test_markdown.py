"""Names in Markdown are text, whatever they hold."""

import re

from hypothesis import given
from hypothesis import strategies as st

from xray_lightning.markdown import block, code, escaped


@given(st.text())
def test_no_name_is_markup(name: str) -> None:
    text = escaped(name)
    assert "\n" not in text
    assert re.search(r"(?<!\\)(?:\\\\)*[<>|`*\[\]]", text) is None


def test_a_name_keeps_its_letters() -> None:
    assert escaped("a_b pneumonia_cnn_s0 lr=0.1 ü") == "a_b pneumonia_cnn_s0 lr=0.1 ü"


@given(st.text(alphabet="a`\n "), st.sampled_from([code, block]))
def test_nothing_ends_code_but_its_end(text: str, how: object) -> None:
    shown = how(text)  # type: ignore[operator]
    fence = re.match("`+", shown)[0]  # type: ignore[index]
    inner = shown[len(fence) : -len(fence)]
    assert shown.endswith(fence) and fence not in re.findall("`+", inner)
