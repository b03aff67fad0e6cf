from __future__ import annotations

import io
import sys

import pytest

from robustbench_local.data.progress import counting_bar


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_many_pictures_are_counted_on_a_bar_and_few_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, count in ((Screen(), 300), (io.StringIO(), 300), (Screen(), 5)):
        monkeypatch.setattr(sys, "stderr", stream)
        with counting_bar("decoding \x1b[31mred", count) as counted:
            assert list(counted(range(count))) == list(range(count))
        said = stream.getvalue()
        assert ("decoding \\x1b[31mred ..." in said) == (count == 300)
        assert ("300/300" in said) == (count == 300 and stream.isatty())
