"""Which of Spark's rewriting rules are left out: those that a stream's plan has no use for.

Spark plans each micro-batch anew, twice, and tries every rule on it. The plan is one selection over one
source, and no rule makes it better; trying them takes a cold JVM as long as a small batch's scoring. Spark
knows itself which rules results rest on, and applies those whatever is listed here.
"""

from __future__ import annotations

_PACKAGE = "org.apache.spark.sql.catalyst.optimizer"
# What prunes columns, and brings conditions to the source, stays: for whoever reads tables by this session.
_LEFT_OUT = """
    BooleanSimplification CheckCartesianProducts CollapseRepartition CollapseWindow CombineConcats
    CombineTypedFilters CombineUnions ConstantPropagation ConvertToLocalRelation CostBasedJoinReorder
    DecimalAggregates EliminateAggregateFilter EliminateDistinct EliminateLimits EliminateMapObjects
    EliminateOffsets EliminateOuterJoin EliminateSerialization EliminateSorts EliminateWindowPartitions
    FoldablePropagation GenerateOptimization InferFiltersFromConstraints InferFiltersFromGenerate
    InferWindowGroupLimit InjectRuntimeFilter LikeSimplification LimitPushDown LimitPushDownThroughWindow
    MergeSubplans NullDownPropagation NullPropagation ObjectSerializerPruning OptimizeCsvJsonExprs
    OptimizeExpand OptimizeIn OptimizeJoinCondition OptimizeOneRowPlan OptimizeOneRowRelationSubquery
    OptimizeRand OptimizeRepartition OptimizeUpdateFields OptimizeWindowFunctions PropagateEmptyRelation
    PullOutNestedDataOuterRefExpressions PushDownJoinThroughUnion PushDownLeftSemiAntiJoin
    PushExtraPredicateThroughJoin PushFoldableIntoBranches PushLeftSemiLeftAntiThroughJoin
    PushPredicateThroughJoin PushProjectionThroughLimitAndOffset PushProjectionThroughUnion
    ReassignLambdaVariableID RemoveLiteralFromGroupExpressions RemoveNoopOperators RemoveNoopUnion
    RemoveRedundantAggregates RemoveRedundantAliases RemoveRedundantSorts RemoveRepetitionFromGroupExpressions
    ReorderAssociativeOperator ReorderJoin ReplaceNullWithFalseInPredicate RewriteNonCorrelatedExists
    SimplifyBinaryComparison SimplifyCaseConversionExpressions SimplifyCasts SimplifyConditionals
    SimplifyDateTimeConversions SimplifyExtractValueOps TransposeWindow UnwrapCastInBinaryComparison
"""


def rules_left_out() -> str:
    """Return their names as the setting `spark.sql.optimizer.excludedRules` takes them."""
    return ",".join(f"{_PACKAGE}.{name}" for name in _LEFT_OUT.split())
