"""What expressions of all dashboards have in common: the choices at the top as matchers, and names of partitions."""

from __future__ import annotations

from dashboards.board import Variable

NODE = 'instance=~"$instance"'
GPU = f'{NODE},gpu_id=~"$gpu_id"'
MODEL = f'{NODE},model=~"$model"'
INSTANCES = Variable("instance", "Node", "label_values(aim_build_info, instance)")
GPUS = Variable("gpu_id", "GPU", 'label_values(aim_gpu_info{instance=~"$instance"}, gpu_id)')
MODELS = Variable("model", "Model", 'label_values(aim_scheduler_guarantee_slots{instance=~"$instance"}, model)')
RATE = "[$__rate_interval]"
OK, WARN, BAD, PLAIN = "green", "orange", "red", "blue"
PARTITION = "{{gpu}}/{{partition_id}}"
BY_PLACE = "instance,gpu_id,partition_id"


def named(expression: str) -> str:
    """The partitions' series with the GPU's name on the node, as aimctl calls it (gpu3), and the modes."""
    return (
        f"{expression} * on ({BY_PLACE}) group_left (gpu, compute_mode, memory_mode) "
        f"(aim_gpu_partition_info{{{GPU}}} == 1)"
    )


def share(part: str, whole: str) -> str:
    """One sum of the other, where there is any."""
    return f"({part}) / ({whole} > 0)"


def quantile(level: float, family: str, matchers: str, labels: str) -> str:
    """A quantile of a histogram's last minutes, apart by labels."""
    return f"histogram_quantile({level}, sum by (le, {labels}) (rate({family}_bucket{{{matchers}}}{RATE})))"
