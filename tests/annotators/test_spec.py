"""Annotators as their authors write them: AlpacaEval's configs.yaml, templates and parsers."""

import math
import shutil

import pytest
import yaml

from alpaca_farm_core.annotators.config import AnnotatorConfig, PreferencesConfig
from alpaca_farm_core.annotators.factory import annotator_external, build_annotator, calls_per_pair, check_annotator
from alpaca_farm_core.annotators.parsers import Said, Verdict, make_parser
from alpaca_farm_core.annotators.prompts import JudgePrompt
from alpaca_farm_core.annotators.spec import BUILTIN_FOLDER, builtin_names, load_set, load_spec
from alpaca_farm_core.config.execution import ExecutionConfig
from alpaca_farm_core.errors import ConfigError
from alpaca_farm_core.types import Pair

PAIR = Pair("Do {output_1}.", "", "A {instruction}", "B")
LETTERS = {"A": 1, "B": 2}
PLAIN = "Q: {instruction}\n1: {output_1}\n2: {output_2}\nBest?"
SETTINGS = {
    "prompt_template": "mine/prompt.txt",
    "fn_completions": "openai_completions",
    "completions_kwargs": {"model_name": "gpt-x", "max_tokens": 100, "temperature": 0, "num_procs": 3},
    "fn_completion_parser": "ranking_parser",
    "batch_size": 1,
    "pretty_name": "Mine",
    "is_randomize_output_order": False,
}


def write_folder(root, settings=SETTINGS, template=PLAIN):
    folder = root / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "configs.yaml").write_text(yaml.safe_dump({"my_judge": settings}))
    (folder / "prompt.txt").write_text(template)
    return str(folder)


def test_reads_an_alpaca_eval_folder(tmp_path):
    spec = load_spec(write_folder(tmp_path))
    assert (spec.name, spec.model, spec.random_order) == ("my_judge", "gpt-x", False)
    assert spec.sampling == {"max_tokens": 100, "temperature": 0}
    (message,) = spec.prompt_for(PAIR).render([PAIR])
    assert message == {"role": "user", "content": "Q: Do {output_1}.\n1: A {instruction}\n2: B\nBest?"}
    assert spec.parser(Said("[{'model': 'model_2', 'rank': 1}, {'model': 'model_1', 'rank': 2}]")) == [Verdict(2.0)]


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_annotators_load_and_use_the_input(name):
    with_input = Pair("Count.", "a b c", "3", "4")
    for spec in load_set(name).members:
        texts = [spec.prompt_for(p).render([p])[-1]["content"] for p in (PAIR, with_input)]
        assert ["a b c" in text for text in texts] == [False, True]
        assert all(text in texts[0] for text in (PAIR.instruction, PAIR.output_1, PAIR.output_2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 5}, "occurs 1 times, batch_size is 5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"prompt_template": "mine/none.txt"}, "no template 'mine/none.txt'"),
        ({"prompt_template": "../../etc/passwd"}, "no template"),
        ({"prompt_template": {"with_inputs": "mine/prompt.txt"}}, "with_inputs and without_inputs"),
        ({"fn_completions": "anthropic_completions"}, "'anthropic_completions' is not supported"),
        ({"fn_completion_parser": "rankin_parser"}, "unknown parser 'rankin_parser'"),
        ({"completion_parser_kwargs": {"colour": 1}}, "ranking_parser cannot take"),
        ({"completions_kwargs": {"temperature": 0}}, "no model_name"),
        ({"completions_kwargs": {"model_name": "m", "stream": True}}, "stream is not supported"),
        ({"completions_kwargs": {"model_name": "m", "api_key": "k"}}, "'api_key' does not belong into a file"),
        ({"completions_kwargs": {"model_name": "m", "client_kwargs": {"api_key": "k"}}}, "'api_key' does not belong"),
        ({"completions_kwargs": {"model_role": "stronk"}}, "unknown model_role 'stronk'.*\n.*'strong'"),
        ({"annotation_column": "quality"}, "only annotation_column 'preference'"),
        ({"processors_to_kwargs": {"JsonKeysToColumnProcessor": {}}}, "'JsonKeysToColumnProcessor' is not supported"),
        ({"promt_template": "x"}, "'promt_template' is not supported"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load_spec(write_folder(tmp_path, SETTINGS | change))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{instruction} {output_1}", r"\{output_2\} occurs 0 times, batch_size is 1"),
        (PLAIN + "{output_1}", r"\{output_1\} occurs 2 times"),
        (PLAIN + "{input}{input}", r"\{input\} occurs 2 times"),
        ("<|im_start|>user\n" + PLAIN + "<|im_end|> stray", "text outside of the chat turns: 'stray'"),
        ("<|im_start|>user\n" + PLAIN, "text outside of the chat turns"),
        ("<|im_start|>judge\n" + PLAIN + "<|im_end|>", "unknown role 'judge'"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(tmp_path, template, words):
    with pytest.raises(ConfigError, match=words):
        load_spec(write_folder(tmp_path, template=template))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "holds no annotator"),
        ("", "holds no annotator"),
        ("a: {}\nb: {}", "no model_name"),
    ],
)
def test_a_broken_configs_file_is_named(tmp_path, text, words):
    (tmp_path / "configs.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_spec(str(tmp_path))


def test_unknown_annotators_are_named():
    with pytest.raises(ConfigError, match="Unknown annotator 'greddy'") as caught:
        load_spec("greddy")
    assert "'greedy'" in caught.value.next_action
    with pytest.raises(ConfigError, match="no annotator folder"):
        load_spec("some/where")


def test_every_byte_read_is_in_the_fingerprint(tmp_path):
    assert annotator_external(AnnotatorConfig()) == {}
    config = AnnotatorConfig(name=write_folder(tmp_path))
    first = annotator_external(config)
    assert first == annotator_external(config)
    write_folder(tmp_path, template=PLAIN + " Think.")
    second = annotator_external(config)
    write_folder(tmp_path, SETTINGS | {"completions_kwargs": {"model_name": "gpt-y"}})
    assert len({first["annotator"], second["annotator"], annotator_external(config)["annotator"]}) == 3


def test_a_copy_of_a_built_in_annotator_is_the_same(tmp_path):
    shutil.copytree(BUILTIN_FOLDER / "greedy", tmp_path / "greedy")
    assert load_spec(str(tmp_path / "greedy")).content == load_spec("greedy").content


def test_a_chat_template_becomes_turns_with_names():
    text = (
        "<|im_start|>system name=rules\nBe fair.\n<|im_end|>\n<|im_start|>user\n{instruction}<|im_end|>\n"
        "<|im_start|>assistant\nGo on.<|im_end|>\n<|im_start|>user\n{output_1} or {output_2}?<|im_end|>"
    )
    assert JudgePrompt.parse(text, 1, "t").render([Pair("I", "extra", "A", "B")]) == (
        {"role": "system", "content": "Be fair.", "name": "rules"},
        {"role": "user", "content": "I\n\nextra"},
        {"role": "assistant", "content": "Go on."},
        {"role": "user", "content": "A or B?"},
    )


def test_the_kth_placeholder_takes_the_kth_pair():
    prompt = JudgePrompt.parse("{instruction} {output_1} {output_2}; {instruction} {output_1} {output_2}", 2, "t")
    (message,) = prompt.render([Pair("{output_2}", "", "a", "b"), Pair("j", "", "c", "d")])
    assert message["content"] == "{output_2} a b; j c d"


@pytest.mark.parametrize(
    ("name", "options", "text", "expected"),
    [
        ("regex_parser", {"outputs_to_match": {1: r"\n\(a\)", 2: r"\n\(b\)"}}, "\n(b)\n\n### 2:\n(a)", [2.0, 1.0]),
        ("regex_parser", {"outputs_to_match": {1: r" true", 2: r" false", 0: " same"}}, ": same", [1.5]),
        ("regex_parser", {"outputs_to_match": {1: "a"}}, "", []),
        ("ranking_parser", {}, "```python\n[{'model': 'model_1', 'rank': 1}]\n```", [1.0]),
        ("ranking_parser", {}, "[{'model': 'model_1', 'rank': 3}]", [None]),
        ("ranking_parser", {}, "[{'model': 'model_2', 'rank': 1}]", []),
        ("ranking_parser", {}, "__import__('os').system('true')", []),
        ("ranking_parser", {}, "[" * 100_000, []),
        ("ranking_parser", {}, "[1, 2]", []),
        ("json_parser", {"annotation_key": "k"}, 'Sure:\n```json\n{"k": 2}\n```', [2.0]),
        ("json_parser", {"annotation_key": "k"}, 'I think {"k": "1"} is right', [1.0]),
        ("json_parser", {"annotation_key": "k"}, '[{"k": 1}, {"k": 1.25}, {"k": 7}]', [1.0, 1.25, None]),
        ("json_parser", {"annotation_key": "k"}, '{"k": true}', [None]),
        ("json_parser", {"annotation_key": "k"}, '{"k": NaN}', [None]),
        ("json_parser", {"annotation_key": "k"}, '{"other": 1}', []),
        ("json_parser", {"annotation_key": "k"}, '{"k": 1', []),
        ("json_parser", {"annotation_key": "k"}, "[" * 100_000, []),
        ("json_parser", {"annotation_key": "k"}, "", []),
        ("json_parser", {"annotation_key": "k"}, '{"k": 1}\n{"k": 2},\n{"k": 1}', [1.0, 2.0, 1.0]),
        ("lmsys_parser", {}, "1 7\n ...", [2.0]),
        ("lmsys_parser", {}, "8, 6\nbecause 1 9", [1.0]),
        ("lmsys_parser", {}, "1 1", [1.5]),
        ("lmsys_parser", {}, "nan 1", []),
        ("lmsys_parser", {}, "7\n8", []),
        ("lmsys_parser", {}, "Assistant 1: 8", []),
        ("eval_parser", {}, "[1, 2, '1.5']", [1.0, 2.0, 1.5]),
        ("eval_parser", {}, "2", [2.0]),
        ("eval_parser", {}, "(1, 2)", [None]),
        ("eval_parser", {}, "__import__('os').getpid()", []),
        ("replace_parser", {"replacer": {"first": 1, "second": 2}}, "second", [2.0]),
        ("replace_parser", {"replacer": {"first": 1}}, "third", [None]),
        ("replace_parser", {"replacer": {"first": 1}, "default_replacer": 1.5}, "third", [1.5]),
        (
            "pipeline_meta_parser",
            {"parsers_to_kwargs": {"json_parser": {"annotation_key": "r"}, "ranking_parser": {}}},
            '{"ex": "…", "r": [{"model": "model_1", "rank": 2}, {"model": "model_2", "rank": 1}]}',
            [2.0],
        ),
        (
            "pipeline_meta_parser",
            {"parsers_to_kwargs": {"json_parser": {"annotation_key": "k"}, "replace_parser": {"replacer": LETTERS}}},
            '[{"k": "B"}, {"k": "A"}, {"k": "C"}]',
            [2.0, 1.0, None],
        ),
    ],
)  # fmt: skip
def test_parsers(name, options, text, expected):
    assert [verdict.preference for verdict in make_parser(name, options, "t")(Said(text))] == expected


def test_json_explanations_are_kept():
    parse = make_parser("json_parser", {"annotation_key": "k"}, "t")
    assert parse(Said('{"concise_explanation": "too long", "k": 2}')) == [Verdict(2.0, "too long")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Output (a)", 1.0), ('"Output (b)".', 2.0), ("**Output (a)**", 1.0), ("(b)", 2.0),
        ("Output (a) is better than Output (b).", 1.0), ("Output (b)\nOutput (b)", 2.0),
        ("I prefer Output (a)", None), ("Output (c)", None), ("a", None),
    ],
)  # fmt: skip
def test_greedy_reads_the_first_thing_said(text, expected):
    verdicts = load_spec("greedy").parser(Said(text))
    assert [v.preference for v in verdicts] == ([] if expected is None else [expected])


@pytest.mark.parametrize("pattern", ["(", "a*", ""])
def test_patterns_that_cannot_work_are_refused(pattern):
    with pytest.raises(ConfigError, match="outputs_to_match"):
        make_parser("regex_parser", {"outputs_to_match": {1: pattern}}, "t")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"annotator": {"label_flip": 0.6}}, "less than or equal to 0.5"),
        ({"annotator": {"model": "gpt-x"}}, "the oracle asks no model"),
        ({"annotator": {"both_orders": True}}, "reads both outputs at once"),
        ({"annotator": {"models": {"stronk": "m"}}}, "annotator.models.stronk.*\n.*'strong'"),
        ({"annotator": {"seeds": 1}}, "annotator.seeds"),
        ({"pairs_per_instruction": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_are_checked(values, words):
    with pytest.raises(ConfigError, match=words):
        PreferencesConfig.build(values)


def test_the_runs_seed_fills_a_gap_only():
    assert AnnotatorConfig().seeded(7).seed == 7
    assert AnnotatorConfig(seed=0).seeded(7).seed == 0


TOP = [
    {"token": "m", "logprob": math.log(0.3)},
    {"token": "M", "logprob": math.log(0.1)},
    {"token": "x", "logprob": -1},
]
ALPACA_EVAL_2 = {"numerator_token": "m", "denominator_tokens": ["m", "M"], "is_binarize": False}


@pytest.mark.parametrize(
    ("change", "content", "expected"),
    [
        ({}, [TOP], [1.25]),
        ({"is_binarize": True}, [TOP], [1.0]),
        ({"numerator_token": "M"}, [TOP], [1.75]),
        ({"numerator_token": "M", "is_binarize": True}, [TOP], [2.0]),
        ({}, [TOP, TOP[1:]], [1.25, 2.0]),
        ({"log_prob_index": -1}, [TOP[2:], TOP], [1.25]),
        ({"log_prob_index": 5}, [TOP], []),
        ({}, [TOP[2:]], [None]),
        ({}, None, []),
    ],
)
def test_log_probabilities_are_weighed_as_alpaca_eval_does(change, content, expected):
    parse = make_parser("logprob_parser", ALPACA_EVAL_2 | change, "t")
    logprobs = None if content is None else {"content": [{"token": "m", "top_logprobs": top} for top in content]}
    assert [verdict.preference for verdict in parse(Said("m", logprobs))] == pytest.approx(expected)


def test_parsers_that_cannot_work_are_refused():
    for name, options, words in (
        ("logprob_parser", {"numerator_token": "a", "denominator_tokens": ["b"]}, "not among the denominator_tokens"),
        ("pipeline_meta_parser", {"parsers_to_kwargs": {}}, "parsers_to_kwargs is empty"),
        ("pipeline_meta_parser", {"parsers_to_kwargs": {"jason_parser": {}}}, "unknown parser 'jason_parser'"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_parser(name, options, "t")


BLOCK = (
    "Compare.\n{#pairs}\n{number}. {instruction}\n{#input}\nGiven: {input}\n{/input}\n"
    "A {output_1}\nB {output_2}\n{/pairs}\nSo?"
)


def test_a_block_is_repeated_and_numbered_for_each_pair():
    prompt = JudgePrompt.parse(BLOCK, 3, "t")
    (message,) = prompt.render([Pair("{number}", "", "a", "{/pairs}"), Pair("j", "{#input}", "c", "d")])
    assert message["content"] == ("Compare.\n1. {number}\nA a\nB {/pairs}\n2. j\nGiven: {#input}\nA c\nB d\nSo?")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{#pairs}{instruction}{output_1}{output_2}", "needs one block"),
        ("{#pairs}{instruction}{output_1}{output_2}{/pairs}{#pairs}{/pairs}", "needs one block"),
        ("{instruction}{#pairs}{instruction}{output_1}{output_2}{/pairs}", "outside of"),
        ("{#pairs}{instruction}{output_1}{/pairs}", r"\{output_2\} occurs 0 times in the block"),
        ("{#pairs}{instruction}{output_1}{output_2}{#input}{input}{/pairs}", "is not whole"),
    ],
)
def test_broken_blocks_are_named(template, words):
    with pytest.raises(ConfigError, match=words):
        JudgePrompt.parse(template, 2, "t")


def test_roles_are_mapped_in_one_place(tmp_path):
    config = AnnotatorConfig.build({"name": "pool", "models": {"strong": "qwen", "cheap": "phi"}})
    models = {member.model for member in load_set("pool", config.models).members}
    assert models == {"qwen", "phi", "gpt-4o-mini"}


def test_a_folder_with_several_annotators_is_a_pool(tmp_path):
    folder = write_folder(tmp_path)
    settings = yaml.safe_dump({"one": SETTINGS, "two": SETTINGS | {"batch_size": 1}})
    (tmp_path / "mine" / "configs.yaml").write_text(settings)
    found = load_set(folder)
    assert (found.name, [member.name for member in found.members]) == ("mine", ["one", "two"])
    with pytest.raises(ConfigError, match="pool of 2"):
        load_spec(folder)


def test_a_server_named_in_a_file_is_asked_only_with_consent(tmp_path):
    options = SETTINGS["completions_kwargs"] | {"client_kwargs": {"base_url": "https://judge.example/v1"}}
    config = AnnotatorConfig(name=write_folder(tmp_path, SETTINGS | {"completions_kwargs": options}))
    with pytest.raises(ConfigError, match=r"asks a server of its own: https://judge\.example/v1"):
        check_annotator(config, ExecutionConfig())
    check_annotator(config, ExecutionConfig(base_url="https://judge.example/v1"))


def test_token_lists_need_a_tokenizer_or_consent(tmp_path):
    options = SETTINGS["completions_kwargs"] | {"tokens_to_favor": ["a"], "tokens_to_avoid": ["both"]}
    folder = write_folder(tmp_path, SETTINGS | {"completions_kwargs": options})
    for allowed in (True, False):
        config = AnnotatorConfig(name=folder, token_bias=allowed)
        if allowed:
            with pytest.raises(ConfigError, match="tiktoken"):
                build_annotator(config, tmp_path / "calls", ExecutionConfig(base_url="http://127.0.0.1:9/v1"))
        else:
            build_annotator(config, tmp_path / "calls", ExecutionConfig(base_url="http://127.0.0.1:9/v1"))


def test_calls_are_counted_before_a_run():
    assert calls_per_pair(AnnotatorConfig()) == 0
    assert calls_per_pair(AnnotatorConfig(name="greedy")) == 1
    assert calls_per_pair(AnnotatorConfig(name="greedy", both_orders=True, label_flip=0.25)) == 1
    # Two of four pairs a prompt, four of five, seven of one.
    assert calls_per_pair(AnnotatorConfig(name="pool")) == pytest.approx((2 / 4 + 4 / 5 + 7) / 13)
