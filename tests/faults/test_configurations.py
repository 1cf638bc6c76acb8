"""Files of `--config` that are none, or that say what makes no sense."""

import pytest
from faults.conftest import SMALL

READ = "--config cannot be read as options"
FILES = {
    "empty": (b"", READ),
    "null": (b"null", READ),
    "a comment": (b"# nothing\n", READ),
    "a list": (b"- 1\n- 2\n", READ),
    "a number": (b"3\n", READ),
    "a word": (b"steps\n", READ),
    "every byte": (bytes(range(256)), "--config is no text"),
    "zeros": (b"\0\0\0", READ),
    "two bytes a letter": ("z_dim: 1".encode("utf-16"), "--config is no text"),
    "half a mapping": (b"{", READ),
    "two colons": (b"a: b: c", READ),
    "a tab": (b"\tz_dim: 1", READ),
    "two documents": (b"z_dim: 3\n---\nz_dim: 4", READ),
    "too deep": (b"[" * 3000, READ),
    "itself within": (b"a: &a [*a]", "refers to itself"),
    "an unknown alias": (b"z_dim: *b", READ),
    "a tag that runs code": (b'z_dim: !!python/object/apply:os.mkdir ["harmed"]', READ),
    "a tag of a class": (b"!!python/object:builtins.dict {}", READ),
    "another file that is not there": (b"config: other.yaml", "File does not exist"),
    "an unknown option": (b"stepps: 3", "unknown option stepps: did you mean --steps"),
    "an option of another story": (b"zeta_p: 3", "unknown option zeta_p"),
    "an option within another": (b"a:\n  z_dim: 3", "unknown option a.z_dim"),
    "a number for a name": (b"3: 4", "Key must be a string, got: 3"),
    "null for a name": (b"null: 4", "Key must be a string, got: None"),
    "a word for a number": (b"z_dim: many", "--z-dim: give a whole number; got many"),
    "half a dimension": (b"z_dim: 1.5", "--z-dim: give a whole number; got 1.5"),
    "null for a number": (b"z_dim: null", "--z-dim must be a whole number; got None"),
    "a list for a number": (b"z_dim: [1]", "--z-dim: give a whole number; got [1]"),
    "names for a number": (b"z_dim: {a: 1}", "--z-dim: give a whole number"),
    "true for a number": (b"z_dim: true", "--z-dim: give a whole number; got True"),
    "a date for a number": (b"z_dim: 2020-01-01", "--z-dim: give a whole number"),
    "no dimension": (b"z_dim: 0", "--z-dim must be positive; got 0"),
    "the second of two": (b"z_dim: 3\nz_dim: 0\n", "--z-dim must be positive; got 0"),
    "past 64 bits": (b"z_dim: 100000000000000000000", "--z-dim is too large"),
    "JSON": (b'{"z_dim": 0}', "--z-dim must be positive; got 0"),
    "lines of Windows": (b"z_dim: 0\r\n", "--z-dim must be positive; got 0"),
    "a mark of byte order": (b"\xef\xbb\xbfz_dim: 0", "--z-dim must be positive; got 0"),
    "no rate": (b"learning_rate: .nan", "--learning-rate must be finite; got nan"),
    "an infinite rate": (b"learning_rate: .inf", "--learning-rate must be finite; got inf"),
    "a misspelt choice": (b"networks: cnv", "unknown --networks 'cnv': did you mean conv?"),
    "misspelt data": (b"data: digts", "there is no data set 'digts': did you mean digits?"),
    "a misspelt guide": (b"guide: mean-feild", "has no guide 'mean-feild'"),
    "epochs beside steps": (b"epochs: 3", "give either --epochs or --steps"),
    "no devices": (b"devices: 0", "--devices must be at least 1; got 0"),
    "a seed below zero": (b"seed: -1", "--seed must be a whole number from 0"),
    "a number for a list": (b"hidden_dims: 8", "--hidden-dims: give values in brackets; got 8"),
    "a layer of nothing": (b"hidden_dims: [0]", "--hidden-dims must be positive; got [0]"),
    "a list for a folder": (b"out: [a]", "--out: give a word; got ['a']"),
    "a list for the data": (b"data_dir: [1]", "--data-dir: give a word; got [1]"),
    "maybe": (b"resume: maybe", "--resume must be true or false; got 'maybe'"),
    "a number for a flag": (b"eager: 3", "--eager must be true or false; got 3"),
}
TRAIN = f"train vae-digits --steps 1 {SMALL.replace('--hidden-dims [8] ', '')}"


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
def test_a_wrong_file_of_options(content, words, refused, tmp_path):
    (tmp_path / "options.yaml").write_bytes(content)
    # What the line says would overrule what the file says.
    command = TRAIN.replace("--networks dense ", "") if b"networks" in content else TRAIN
    refused(f"{command} --out new/run --config options.yaml", words)


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_a_file_of_options_that_is_not_there(path, refused):
    refused(f"{TRAIN} --out new/run --config {path}", "--config: ")
