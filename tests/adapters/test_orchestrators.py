"""What orchestrators say of their work, in our words.

None of them is installed here, for they are large: these are stand-ins that have the public attributes which the
documentation of Temporal (``temporalio.activity.info()``), Prefect (``prefect.runtime``), LangGraph
(``langgraph.config.get_config()``) and Airflow (``airflow.sdk.get_current_context()``) names, and no others.
"""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from keyhole.adapters import work
from keyhole.client.context import context, current
from keyhole.core.errors import InvalidRequest


@pytest.fixture
def library(monkeypatch):
    """Puts a stand-in in the place of a module."""

    def put(name, **attributes):
        made = ModuleType(name)
        vars(made).update(attributes)
        for parent in [name.rpartition(".")[0], name]:
            monkeypatch.setitem(sys.modules, parent, made if parent == name else ModuleType(parent))
        return made

    return put


def raising(*_):
    raise RuntimeError("not here")


def temporal_info(**changed):
    known = {"workflow_type": "Billing", "workflow_id": "order-7", "workflow_run_id": "0197-run", "activity_id": "3"}
    return SimpleNamespace(**{**known, "activity_type": "charge", "attempt": 2, "activity_run_id": None, **changed})


def test_an_activity_of_temporal_is_a_step_of_its_workflow(library):
    library("temporalio.activity", in_activity=lambda: True, info=temporal_info)
    assert work.temporal() == {"workflow": "Billing", "run": "0197-run", "step": "3", "tool": "charge"}
    alone = temporal_info(workflow_type=None, workflow_run_id=None, activity_run_id="a-run")
    library("temporalio.activity", in_activity=lambda: True, info=lambda: alone)
    assert work.temporal() == {"run": "a-run", "step": "3", "tool": "charge"}


def test_a_task_of_prefect_is_a_step_of_its_flow(library):
    flow = SimpleNamespace(id="f-run", flow_name="billing", name="brave-newt")
    nobody = SimpleNamespace(id=None, name=None, task_name=None)
    library("prefect.runtime", flow_run=flow, task_run=nobody)
    assert work.prefect() == {"workflow": "billing", "run": "f-run"}
    library("prefect.runtime", flow_run=flow, task_run=SimpleNamespace(id="t", name="charge-0", task_name="charge"))
    assert work.prefect() == {"workflow": "billing", "run": "f-run", "step": "charge-0", "tool": "charge"}


@pytest.mark.parametrize(
    ("config", "run"),
    [
        ({"configurable": {"thread_id": "t", "run_id": "r"}}, "r"),
        ({"configurable": {"thread_id": "t"}, "metadata": {"run_id": "m"}}, "m"),
        ({"configurable": {"thread_id": "t"}}, "t"),
    ],
)
def test_a_node_of_langgraph_is_a_step_of_its_run(library, config, run):
    node = {"langgraph_node": "charge", "langgraph_step": 2}
    config = {**config, "metadata": {"graph_id": "billing", **config.get("metadata", {}), **node}}
    said = {"workflow": "billing", "run": run, "step": "charge/2", "tool": "charge"}
    assert work.langgraph(config) == said
    library("langgraph.config", get_config=lambda: config)
    assert work.langgraph() == said


def test_a_task_of_airflow_is_a_step_of_the_run_of_its_dag(library):
    task = SimpleNamespace(dag_id="billing", run_id="manual__2027", task_id="charge", map_index=-1)
    given = {"ti": task, "dag_run": SimpleNamespace(run_id="manual__2027")}
    said = {"workflow": "billing", "run": "manual__2027", "step": "charge", "tool": "charge"}
    assert work.airflow(given) == said
    library(
        "airflow.sdk", get_current_context=lambda: {**given, "ti": SimpleNamespace(**{**vars(task), "map_index": 4})}
    )
    assert work.airflow() == {**said, "step": "charge[4]"}


def test_elsewhere_they_say_so(library):
    library("temporalio.activity", in_activity=lambda: False, info=raising)
    nobody = SimpleNamespace(id=None, name=None, task_name=None, flow_name=None)
    library("prefect.runtime", flow_run=nobody, task_run=nobody)
    library("langgraph.config", get_config=raising)
    library("airflow.sdk", get_current_context=raising)
    for ask in (work.temporal, work.prefect, work.langgraph, work.airflow):
        with pytest.raises(InvalidRequest, match="does not run within"):
            ask()


@pytest.mark.parametrize("ask", [work.temporal, work.prefect, work.langgraph, work.airflow])
def test_who_is_not_installed_is_named(monkeypatch, ask):
    for name in ("temporalio", "prefect", "langgraph", "airflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidRequest, match="is not installed here"):
        ask()


def test_what_no_record_could_hold_is_left_out(library):
    library("temporalio.activity", in_activity=lambda: True, info=lambda: temporal_info(activity_id="a\nb" + "x" * 300))
    with context(**work.temporal()):
        assert current().claims["step"] == ("ab" + "x" * 300)[:200]
