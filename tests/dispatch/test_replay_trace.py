"""Reading traces: the documented form in its variants, each wrong field with its place, and files of any size."""

import os
import tracemalloc

import pytest

from aimd.dispatch.values import SECOND, Class
from aimd.errors import InvalidInputError
from aimd.replay.trace import rows
from tests.dispatch.traces import HEADER, write

DAY = "2023-11-16 18:15:46.6805900"


def refusal(path, **how):
    """The sentence with which a trace is refused, without the path of its folder."""
    with pytest.raises(InvalidInputError) as caught:
        list(rows([path], **how))
    return caught.value.message.replace(f"{path.parent}/", "")


def test_azure_form(tmp_path):
    path = write(tmp_path / "conv.csv", f"{DAY},374,44", "2023-11-16 18:15:50.9951690,396,109")
    first, second = rows([path], by_clock=True)
    assert first == (1_700_158_546_680_590_000, 374, 44, None, "conv", None)
    assert second.arrival_ns - first.arrival_ns == 4_314_579_000
    assert [row.arrival_ns for row in rows([path])] == [0, 4_314_579_000]


def test_optional_columns_in_any_order_and_case(tmp_path):
    header = "Deadline,model,GENERATEDTOKENS,contexttokens,Whatever,Class,Timestamp"
    path = write(tmp_path / "a.csv", "2.5,llama,3,2,?,High,7", ",,3,2,?,,7.25", header=header)
    assert list(rows([path])) == [
        (0, 2, 3, Class.HIGH, "llama", 2_500_000_000),
        (SECOND // 4, 2, 3, None, "a", None),
    ]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2023-11-16T18:15:46.68059Z", 1_700_158_546_680_590_000),
        ("2023-11-16 20:15:46.68059+02:00", 1_700_158_546_680_590_000),
        ("2023-11-16 10:45:46.68059-0730", 1_700_158_546_680_590_000),
        ("2024-05-10 00:00:00.009930+00:00", 1_715_299_200_009_930_000),
        ("1970-01-01 00:00:01", SECOND),
        ("0", 0),
        ("12.5", 12_500_000_000),
        ("1e3", 1000 * SECOND),
        ("1700158546.75", 1_700_158_546_750_000_000),
    ],
)
def test_forms_of_an_instant(tmp_path, text, instant):
    (row,) = rows([write(tmp_path / "a.csv", f"{text},1,1")], by_clock=True)
    assert row.arrival_ns == instant


def test_byte_order_mark_line_ends_blank_lines_and_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(f'\ufeff{HEADER},Model\r\n\r\n1,2,3,"a, ""b"""\r\n 2 , 3,4 ,m'.encode())
    assert [row[1:] for row in rows([path])] == [(2, 3, None, 'a, "b"', None), (3, 4, None, "m", None)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x,1,1", "column TIMESTAMP: is 'x', expected a number of seconds from 0 to 1e+11, as in the first row"),
        (
            f"{DAY},1,1",
            f"column TIMESTAMP: is '{DAY}', expected a number of seconds from 0 to 1e+11, as in the first row",
        ),
        (",1,1", "column TIMESTAMP: is empty, expected a number of seconds from 0 to 1e+11, as in the first row"),
        (
            "1699999999999,1,1",
            "column TIMESTAMP: is '1699999999999', expected a number of seconds from 0 to 1e+11, as in the first row",
        ),
        ("6,1,1", "column TIMESTAMP: is 6, before 7, expected rows in order of arrival"),
        ("8,-1,1", "column ContextTokens: is '-1', expected a whole number from 0 to 1000000000"),
        ("8,1.0,1", "column ContextTokens: is '1.0', expected a whole number from 0 to 1000000000"),
        ("8,\u0661,1", r"column ContextTokens: is '\u0661', expected a whole number from 0 to 1000000000"),
        ("8,1,", "column GeneratedTokens: is empty, expected a whole number from 0 to 1000000000"),
        ("8,1,1000000001", "column GeneratedTokens: is '1000000001', expected a whole number from 0 to 1000000000"),
        (
            f"8,1,{'9' * 5000}",
            f"column GeneratedTokens: is '{'9' * 57}...', expected a whole number from 0 to 1000000000",
        ),
        ("8,1", "has 2 fields, expected 3 as in the header"),
        ("8,1,1,1", "has 4 fields, expected 3 as in the header"),
        ("8", "has 1 field, expected 3 as in the header"),
        ('8,1,"1', "is no CSV (unexpected end of data), expected comma-separated fields, quotes in pairs"),
        ("8," + "1" * 70_000, "is longer than 65535 characters, expected a CSV file, a request a line"),
    ],
)
def test_bad_line_is_told_with_its_place(tmp_path, line, said):
    told = refusal(write(tmp_path / "a.csv", "7,1,1", line))
    assert told.startswith("trace a.csv, line 3")
    assert told.removeprefix("trace a.csv, line 3").lstrip(", ") == said


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("Class", "urgent", "is 'urgent', expected high, medium, low or nothing"),
        ("Model", "a\x1b[2Jb", r"is 'a\x1b[2Jb', expected a name in printable UTF-8"),
        ("Deadline", "soon", "is 'soon', expected a number of seconds from 0 to 10,000,000, or nothing"),
        ("Deadline", "-1", "is '-1', expected a number of seconds from 0 to 10,000,000, or nothing"),
        ("Deadline", "nan", "is 'nan', expected a number of seconds from 0 to 10,000,000, or nothing"),
        ("Deadline", "1e300", "is '1e300', expected a number of seconds from 0 to 10,000,000, or nothing"),
    ],
)
def test_bad_optional_field_is_told(tmp_path, column, value, said):
    path = write(tmp_path / "a.csv", "1,1,1,", f"2,1,1,{value}", header=f"{HEADER},{column}")
    assert refusal(path) == f"trace a.csv, line 3, column {column}: {said}"


@pytest.mark.parametrize(
    "text", ["2023-13-01 00:00:00", "2023-11-16", "18:15", "-1", "inf", "1_0", "2023-11-16 18:15:46,68"]
)
def test_first_row_may_be_of_either_form_and_has_to_be_of_one(tmp_path, text):
    told = refusal(write(tmp_path / "a.csv", f'"{text}",1,1'))
    assert told == (
        f"trace a.csv, line 2, column TIMESTAMP: is '{text}', expected a date and time such as "
        "2023-11-16 18:15:46.68 or a number of seconds from 0 to 1e+11"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "trace a.csv has no header, expected TIMESTAMP, ContextTokens, GeneratedTokens in its first line"),
        (
            "\n1,1,1\n",
            "trace a.csv has no header, expected TIMESTAMP, ContextTokens, GeneratedTokens in its first line",
        ),
        (
            "Timestamp,Request tokens,GeneratedTokens\n",
            "trace a.csv, line 1 names no column ContextTokens but 'Timestamp', 'Request tokens', 'GeneratedTokens', expected TIMESTAMP, ContextTokens, GeneratedTokens",
        ),
        (f"{HEADER},class,CLASS\n", "trace a.csv, line 1 names column Class twice, expected each column once"),
    ],
)
def test_bad_header_is_told(tmp_path, content, said):
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert refusal(path) == said


def test_bytes_that_are_no_text_are_told_by_their_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(f"{HEADER},Model\n1,1,1,ok\n2,1,1,\xff\n".encode("latin-1"))
    assert refusal(path) == r"trace a.csv, line 3, column Model: is '\udcff', expected a name in printable UTF-8"


def test_files_that_cannot_be_read(tmp_path):
    assert refusal(tmp_path / "none") == "trace none cannot be read (No such file or directory), expected a CSV file"
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        assert (
            refusal(tmp_path / name)
            == f"trace {name} is no regular file, expected one, because it is read several times"
        )


def test_files_begin_together_or_go_by_the_clock(tmp_path):
    a = write(tmp_path / "a.csv", "100,1,1", "103,1,2")
    b = write(tmp_path / "b.csv", "7,1,3", "8,1,4")
    assert [(row.arrival_ns // SECOND, row.generated_tokens) for row in rows([a, b])] == [
        (0, 1),
        (0, 3),
        (1, 4),
        (3, 2),
    ]
    assert [row.generated_tokens for row in rows([a, b], by_clock=True)] == [3, 4, 1, 2]
    dated = write(tmp_path / "c.csv", f"{DAY},1,5")
    assert len(list(rows([a, dated]))) == 3
    with pytest.raises(
        InvalidInputError, match=r"c.csv, line 2, column TIMESTAMP: is .*, expected a number of seconds"
    ):
        list(rows([a, dated], by_clock=True))


def test_reading_takes_no_more_memory_for_a_longer_trace(tmp_path):
    """A quarter of a megabyte is what the interpreter keeps of freed tuples and the codec; 50,000 lines take three."""
    path = write(tmp_path / "a.csv", *(f"{n},1,1" for n in range(50_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows([path])) == 50_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600_000
