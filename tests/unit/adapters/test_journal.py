"""Records as the journal gets them, read back from its end of the socket."""

import logging
import socket
import struct

import pytest

from aimd.adapters.journal import JournalHandler, about, message_id


@pytest.fixture
def journal(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "journal"))
        end.settimeout(5)
        yield end


@pytest.fixture
def log(journal):
    handler = JournalHandler(journal.getsockname())
    logger = logging.Logger("aimd.test", logging.DEBUG)  # noqa: LOG001 - no other handler is to hear it
    logger.addHandler(handler)
    yield logger
    handler.close()


def entry(journal):
    """The fields of the next entry."""
    data, fields = journal.recv(1 << 20), {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


def test_an_entry_says_where_it_comes_from_and_how_bad_it_is(log, journal):
    log.warning("partition %d is gone", 3)
    fields = entry(journal)
    assert fields["MESSAGE"] == "partition 3 is gone"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"], fields["AIMD_LOGGER"]) == ("4", "aimd", "aimd.test")
    assert fields["CODE_FILE"] == __file__
    assert fields["CODE_FUNC"] == "test_an_entry_says_where_it_comes_from_and_how_bad_it_is"


@pytest.mark.parametrize(
    ("level", "priority"), [(10, "7"), (20, "6"), (30, "4"), (40, "3"), (50, "2"), (35, "4"), (5, "7")]
)
def test_priorities(log, journal, level, priority):
    log.setLevel(1)
    log.log(level, "words")
    assert entry(journal)["PRIORITY"] == priority


def test_an_event_has_an_id_to_search_by(log, journal):
    log.info("switched", extra=about("switch_committed", "gpu0"))
    fields = entry(journal)
    assert (fields["AIMD_EVENT"], fields["AIMD_SUBJECT"]) == ("switch_committed", "gpu0")
    assert fields["MESSAGE_ID"] == message_id("switch_committed")


def test_message_ids_never_change():
    assert message_id("switch_committed") == "ebcc11c5de8e57e0bba59621ae2a55b5"


def test_newlines_do_not_begin_another_field(log, journal):
    try:
        raise ValueError("no\nPRIORITY=0")
    except ValueError:
        log.exception("it failed\nPRIORITY=1")
    fields = entry(journal)
    assert fields["PRIORITY"] == "3"
    assert "ValueError: no\nPRIORITY=0" in fields["MESSAGE"]


def test_a_long_entry_is_cut_and_arrives(log, journal):
    log.info("x" * 1_000_000)
    assert len(entry(journal)["MESSAGE"]) == 48 * 1024


def test_what_the_journal_does_not_take_goes_to_standard_error(log, journal, capsys):
    journal.close()
    log.error("the disk is full")
    assert capsys.readouterr().err == "<3>the disk is full\n"


def test_no_journal_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        JournalHandler(str(tmp_path / "none"))
