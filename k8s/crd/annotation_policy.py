"""The policy that refuses a bad annotation aimd.dev/... when it is applied, with the sentence that aimd would say later.

A value of an annotation is a text: what the schema says of a number is asked of the number that the text means. CEL as in
Kubernetes 1.30 and later (ValidatingAdmissionPolicy, admissionregistration.k8s.io/v1).
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
PREFIX = "aimd.dev/"
WRITTEN_BY_AIMD = ("partition",)
_WHOLE = "^[0-9]{1,9}$"
_DECIMAL = "^[0-9]{1,10}([.][0-9]{1,9})?$"
_PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
_SERVICES = {"apiGroups": ["serving.kserve.io"], "apiVersions": ["v1beta1"], "resources": ["inferenceservices"]}
_MAKERS = [
    {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "statefulsets", "replicasets"]},
    {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"]},
]
_AT_POD = "has(object.metadata.annotations) ? object.metadata.annotations : {}"
_AT_TEMPLATE = (
    "has(object.spec.template.metadata) && has(object.spec.template.metadata.annotations)"
    " ? object.spec.template.metadata.annotations : {}"
)


def documents(fields: Schema) -> list[Schema]:
    """Policy and binding for pods and services, and for what makes pods from a template."""
    return [
        *_policy("aimd-annotations", [_PODS, _SERVICES], _AT_POD, fields),
        *_policy("aimd-template-annotations", _MAKERS, _AT_TEMPLATE, fields),
    ]


def _policy(name: str, rules: list[Schema], annotations: str, fields: Schema) -> list[Schema]:
    about = {"name": name, "labels": {"app.kubernetes.io/part-of": "aimd"}}
    api = "admissionregistration.k8s.io/v1"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{**rule, "operations": ["CREATE", "UPDATE"]} for rule in rules]},
        "matchConditions": [
            {"name": "concerns-aimd", "expression": f"({annotations}).exists(key, key.startsWith('{PREFIX}'))"},
            {"name": "says-it-anew", "expression": _anew(annotations)},
        ],
        "variables": [{"name": "said", "expression": annotations}],
        "validations": validations(fields),
    }
    return [
        {"apiVersion": api, "kind": "ValidatingAdmissionPolicy", "metadata": about, "spec": spec},
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": about,
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]


def _anew(annotations: str) -> str:
    """Whether a write sets or removes any of them. What was there before the policy can be scaled, mended and deleted."""
    before = f"({annotations.replace('object.', 'oldObject.')})"
    now, own = f"({annotations})", f"key.startsWith('{PREFIX}')"
    other = f"{now}.exists(key, {own} && !(key in {before} && {before}[key] == {now}[key]))"
    gone = f"{before}.exists(key, {own} && !(key in {now}))"
    return f"oldObject == null || {other} || {gone}"


def validations(fields: Schema) -> list[Schema]:
    """One for each annotation, one for unknown ones, and those that compare two."""
    known = {PREFIX + field["x-annotation"]: field for field in fields["properties"].values()}
    each = [
        {
            "expression": f"!('{key}' in variables.said) || {_fits(f'variables.said[{key!r}]', field)}",
            "messageExpression": (
                f"\"annotation {key} is '\" + variables.said['{key}'] + \"', expected {field['x-expected']}\""
            ),
            "reason": "Invalid",
        }
        for key, field in known.items()
    ]
    names = [*known, *(PREFIX + name for name in WRITTEN_BY_AIMD)]
    own = f"variables.said.filter(key, key.startsWith('{PREFIX}') && !(key in {names}))"
    unknown = {
        "expression": f"{own}.size() == 0",
        "messageExpression": f'"annotation " + {own}[0] + " is unknown, expected one of {", ".join(known)}"',
        "reason": "Invalid",
    }
    return [unknown, *each, *_together()]


def _together() -> list[Schema]:
    enabled, memory = f"{PREFIX}gpu-sharing", f"{PREFIX}memory-limit-gb"
    limit, guarantee = f"{PREFIX}limit", f"{PREFIX}guarantee"
    on = f"variables.said[?'{enabled}'].orValue('') == 'enabled'"
    both = " && ".join(f"variables.said[?'{key}'].orValue('').matches('{_WHOLE}')" for key in (limit, guarantee))
    return [
        {
            "expression": f"!({on}) || '{memory}' in variables.said",
            "message": f"annotation {memory} is missing, expected GB as GPUs are sold, for example 24",
            "reason": "Invalid",
        },
        {
            "expression": f"!({both}) || int(variables.said['{limit}']) >= int(variables.said['{guarantee}'])",
            "message": f"annotation {limit} is smaller than {guarantee}",
            "reason": "Invalid",
        },
    ]


def _fits(value: str, field: Schema) -> str:
    kind = field.get("type")
    if kind == "boolean":
        return f"{value} in ['enabled', 'disabled']"
    if "enum" in field:
        words = "|".join(dict.fromkeys(word.lower() for word in field["enum"]))
        return f"{value}.lowerAscii().matches('^({words})$')"
    if kind in ("integer", "number"):
        form, number = (_WHOLE, f"int({value})") if kind == "integer" else (_DECIMAL, f"double({value})")
        return " && ".join([f"{value}.matches('{form}')", *_bounds(number, field)])
    return f"{value}.lowerAscii().matches('{field['pattern']}')"


def _bounds(number: str, field: Schema) -> list[str]:
    """Comparisons, with bounds of the number's own type: CEL compares no int with a double."""
    point = ".0" if field["type"] == "number" else ""
    above = ">" if field.get("exclusiveMinimum") else ">="
    below = "<" if field.get("exclusiveMaximum") else "<="
    return [f"{number} {above} {field['minimum']}{point}", f"{number} {below} {field['maximum']}{point}"]
