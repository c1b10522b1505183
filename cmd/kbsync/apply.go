package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) applyCommand() *cobra.Command {
	o := passOptions{wait: true}
	cmd := &cobra.Command{
		Use:   "apply PLAN",
		Short: "Do exactly what a plan says, or nothing",
		Long: `apply reads a plan that kbsync plan --out has kept, and makes it again. If the root, the inventory or the config now give another
plan, apply sends nothing, names the documents that differ, and ends with code 11. Contents count, not times: a plan that was made in one
checkout can be applied in another one. Otherwise apply does what sync does. It takes the flags of the plan from its file.`,
		Example: `  kbsync plan ./docs --knowledge-base 876 --out plan.json
  kbsync apply plan.json`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := readPlan(args[0])
			if err != nil {
				return err
			}
			a.planned = plan.Settings
			cfg, err := a.load(cmd, plan.Arguments...)
			if err != nil {
				return err
			}
			return a.apply(cmd.Context(), cfg, o, plan)
		},
	}
	syncFlags(cmd)
	passFlags(cmd, &o)
	return cmd
}

// apply makes the plan again, compares, and syncs.
func (a *app) apply(ctx context.Context, cfg *config.Config, o passOptions, plan *planFile) error {
	for _, s := range plan.Syncs {
		if s.Error != "" {
			return refusal(fmt.Sprintf("sync %q: this plan cannot be applied: %s", s.Sync, s.Error), nil)
		}
	}
	o.planArgs, o.planFlags = plan.Arguments, plan.Settings
	now, failures, err := a.makePlan(ctx, cfg, o, func(*planProgress, planItem) {})
	if err != nil {
		return err
	}
	if plan.Inventory != "" && plan.Inventory != now.Inventory {
		return refusal(fmt.Sprintf("the plan was made with another state than %s; name its state with --state, or make a new plan", cfg.State), nil)
	}
	if err := engine.JoinErrors(failures); err != nil {
		return err
	}
	if err := comparePlans(plan, now); err != nil {
		return err
	}
	planned := map[string]map[string]planItem{} // by sync and key
	for _, s := range now.Syncs {
		planned[s.Sync] = map[string]planItem{}
		for _, d := range s.Documents {
			planned[s.Sync][d.Key] = d
		}
	}
	o.approve = func(ctx context.Context, store *state.Store, pass engine.PassResult) error {
		return approve(ctx, store, pass, planned[pass.Config.Name])
	}
	return a.sync(ctx, cfg, o)
}

// comparePlans returns an error that names the differences of two plans.
func comparePlans(plan, now *planFile) error {
	var drift []string
	present := map[string]*syncPlan{}
	for _, s := range now.Syncs {
		present[s.Sync] = s
	}
	for _, s := range plan.Syncs {
		other := present[s.Sync]
		delete(present, s.Sync)
		switch {
		case other == nil:
			drift = append(drift, fmt.Sprintf("the sync %q is not in the config", s.Sync))
		case s.Destination != other.Destination:
			drift = append(drift, fmt.Sprintf("the sync %q goes to knowledge base %d at %s", s.Sync, other.Destination.KnowledgeBase, other.Destination.API))
		default:
			drift = append(drift, s.drift(other)...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(present)) {
		drift = append(drift, fmt.Sprintf("the sync %q is not in the plan", name))
	}
	if len(drift) == 0 {
		return nil
	}
	return refusal("the plan does not fit any more", drift)
}

// acts reports whether an action changes the knowledge base or the inventory.
func acts(action string) bool {
	switch engine.Action(action) {
	case engine.ActionUpload, engine.ActionShare, engine.ActionRemove:
		return true
	}
	return false
}

// drift names the documents for which the plan and the present plan differ, in the order of their keys.
func (s *syncPlan) drift(now *syncPlan) []string {
	was, is := map[string]planItem{}, map[string]planItem{}
	for _, d := range s.Documents {
		was[d.Key] = d
	}
	for _, d := range now.Documents {
		is[d.Key] = d
	}
	keys := map[string]bool{}
	for _, documents := range []map[string]planItem{was, is} {
		for key := range documents {
			keys[key] = true
		}
	}
	var drift []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		a, planned := was[key]
		b, present := is[key]
		planned, present = planned && acts(a.Action), present && acts(b.Action)
		text := ""
		switch {
		case !planned && !present:
		case !planned:
			text = "not in the plan, and now to " + b.Action
		case !present:
			text = "planned to " + a.Action + ", and now unchanged, gone or left out"
		case a.Action != b.Action:
			text = "planned to " + a.Action + ", and now to " + b.Action
		case a.SHA256 != b.SHA256:
			text = "changed since the plan"
		}
		if text != "" {
			drift = append(drift, fmt.Sprintf("%s: %s", console.Printable(key), text))
		}
	}
	return drift
}

// approve returns an error if a scan has found something that is not planned: the root changed just now.
func approve(ctx context.Context, store *state.Store, pass engine.PassResult, planned map[string]planItem) error {
	var drift []string
	removals := 0
	for _, d := range planned {
		if d.Action == string(engine.ActionRemove) {
			removals++
		}
	}
	for c, err := range engine.PendingDocuments(ctx, store, pass.Sync.ID) {
		if err != nil {
			return err
		}
		if d, ok := planned[c.Key]; !ok || d.Fingerprint != newPlanItem("", engine.PlanItem{Fingerprint: c.Fingerprint}).Fingerprint || d.Size != c.Fingerprint.Size {
			drift = append(drift, console.Printable(c.Key)+": changed just now")
		}
	}
	if pass.Scan.Removed > removals {
		drift = append(drift, fmt.Sprintf("%s vanished just now", console.Count(pass.Scan.Removed-removals, "document")))
	}
	if len(drift) == 0 {
		return nil
	}
	return refusal("the root changed while the plan was applied", drift)
}

// maxDrift bounds the differences that a message names.
const maxDrift = 20

// refusal is the error of a plan that is not applied.
func refusal(text string, drift []string) error {
	var b strings.Builder
	b.WriteString(text + "; nothing was uploaded")
	for _, d := range drift[:min(len(drift), maxDrift)] {
		b.WriteString("\n  " + d)
	}
	if more := len(drift) - maxDrift; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	if len(drift) > 0 {
		b.WriteString("\nLook at the changes, and make a new plan with kbsync plan --out")
	}
	return engine.WithClass(engine.ClassGuard, errors.New(b.String()))
}
