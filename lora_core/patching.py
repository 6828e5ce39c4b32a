"""Stack -> {parameter: Patch}, and the fused application of a patch.

Interface (being written):

    bind(stack, shape_of) -> Binding          shape_of(whole target) -> Shape | None of the actual model
    Binding.patches: Mapping[Target, Patch]   keyed by whole targets (no slice)
    Binding.reports: tuple[BindReport, ...]   one per stack entry: fitting, total, left over with reasons
    Patch(target, shape, parts)               parts: PatchPart(delta, strength, slice, file), in stack order
    fuse(patch, device) -> tuple[Step, ...]   LowRankStep(up, down, slice): scaled factors, concatenated
                                              over consecutive additive low-rank parts of one slice;
                                              DeltaStep(delta, strength, slice) for everything else
    apply_patch(weight, patch, *, device=None, dtype=None) -> Tensor   float32 inside, rounded once, a new tensor
"""
