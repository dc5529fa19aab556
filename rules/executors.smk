"""What the executors of clouds need: to know of a shared disk, and of jobs in their own words.

Snakemake takes it that such an executor has no shared disk, whatever --shared-fs-usage says, and
then wants a storage provider that carries each file of a rule. Here, jobs read and write files
that all nodes see, or objects of their own: there is nothing to carry. Only what would otherwise
be an error changes: who names a storage provider has Snakemake's way of it.
"""

from snakemake.iocontainers import ResourceList
from snakemake.rules import Rule
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from videofeatures.workflow.executors import translate


def share_disk():
    """Let --shared-fs-usage hold for an executor that is said to be without a shared disk."""
    known = ExecutorPluginRegistry().plugins.get(ARGS.executor)
    if known is None or ARGS.default_storage_provider:
        return
    settings = known.common_settings
    if settings.implies_no_shared_fs:
        settings.implies_no_shared_fs = False
        # Each job would install, from PyPI, what would carry the files.
        settings.auto_deploy_default_storage_provider = False


def expand_resources(rule, *args, snakemake_expand=Rule.expand_resources, **options):
    """Evaluate what a job asks for, and say it in the executor's words, too."""
    resources = snakemake_expand(rule, *args, **options)
    # In a dry-run, nobody is asked, and Snakemake takes each job to have one core.
    if rule.name != get_rule_name("extract") or ARGS.dryrun or ARGS.touch:
        return resources
    try:
        return ResourceList(fromdict=translate(ARGS.executor, dict(resources.items())))
    except UserError as error:
        raise WorkflowError(str(error))


if workflow.is_main_process:
    share_disk()
    Rule.expand_resources = expand_resources
