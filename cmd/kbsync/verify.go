package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [NAME]",
		Short: "Compare the inventory with the API",
		Long: `verify asks the API for the status of every source that is not acknowledged as removed. It prints the live sources that
differ from the state: sources that are gone from the knowledge base, that have another status than at the end of their
training, or that are in another knowledge base. It also prints the left-behind sources that are gone, with the command that
acknowledges them. It changes nothing. If a person removed a live source, run kbsync sources ack ID...; the next sync then
uploads its documents again.

The exit code is 6 if a live source differs.`,
		Example: `  kbsync verify
  kbsync verify handbook --json`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := a.load(cmd)
			if err != nil {
				return err
			}
			return a.verify(cmd.Context(), cfg, args)
		},
	}
	return cmd
}

// A driftView is a source that differs from the state.
type driftView struct {
	ID            int64  `json:"id"`
	Drift         string `json:"drift"` // missing, status or knowledge-base
	Sync          string `json:"sync"`
	Key           string `json:"key"`
	KnowledgeBase int64  `json:"knowledge_base"`
	Known         string `json:"known"`
	Found         string `json:"found"`
}

const driftMissing = "missing"

// A verification compares the inventory with the answers of the API.
type verification struct {
	client *replycx.Client
	result verifyResult
}

func (a *app) verify(ctx context.Context, cfg *config.Config, args []string) (err error) {
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	filter := state.SourceFilter{Standings: []state.Standing{state.Live, state.Superseded, state.Orphaned}}
	if len(args) > 0 {
		s, err := findSync(ctx, store, args[0])
		if err != nil {
			return err
		}
		filter.SyncID = s.ID
	}
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	v := verification{client: api.client.Client, result: verifyResult{Drifts: []driftView{}, Gone: []int64{}}}
	var chunk []state.Source
	for s, err := range store.Inventory.Sources(ctx, filter) {
		if err != nil {
			return err
		}
		switch {
		case !api.engine(cfg).Serves(s.Destination):
			v.result.Elsewhere++
			continue
		case s.ID < 0:
			v.result.Unknown++
			continue
		}
		if chunk = append(chunk, s); len(chunk) == replycx.MaxStatusIDs {
			if err := v.compare(ctx, chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if err := v.compare(ctx, chunk); err != nil {
		return err
	}
	if n := v.result.Elsewhere; n > 0 {
		a.out.Log.Warn("verify skipped the sources of another API or account", "sources", n, "api", api.origin)
	}
	return a.reportDrifts(v.result)
}

// A verifyResult is the result of verify.
type verifyResult struct {
	Checked   int         `json:"checked"`
	Elsewhere int         `json:"elsewhere"` // sources of another API or account, which verify skipped
	Unknown   int         `json:"unknown"`   // sources of unknown id, which verify cannot ask for
	Drifts    []driftView `json:"drifts"`    // of live sources
	// LeftBehind counts the left-behind sources that were checked, and Gone the ones that ReplyCX no longer returns.
	LeftBehind int     `json:"left_behind"`
	Gone       []int64 `json:"gone"`
}

// reportDrifts prints the result. It returns an error if a live source differs.
func (a *app) reportDrifts(r verifyResult) error {
	var missing []int64
	for _, d := range r.Drifts {
		if d.Drift == driftMissing {
			missing = append(missing, d.ID)
		}
	}
	err := a.out.Result(r, func(w io.Writer) {
		for _, d := range r.Drifts {
			fmt.Fprintf(w, "%d  %s: %s, in the state: %s  (%s: %s)\n",
				d.ID, d.Drift, console.Printable(d.Found), console.Printable(d.Known), console.Printable(d.Sync), console.Printable(d.Key))
		}
		fmt.Fprintf(w, "%s verified, %d different from the state\n", console.Count(r.Checked, "live source"), len(r.Drifts))
		if len(missing) > 0 {
			fmt.Fprintf(w, "if a person removed them, upload their documents again with the next sync: kbsync sources ack %s\n", idList(missing))
		}
		if r.LeftBehind > 0 {
			fmt.Fprintf(w, "%s verified, %d of them gone\n", console.Count(r.LeftBehind, "left-behind source"), len(r.Gone))
		}
		if len(r.Gone) > 0 {
			fmt.Fprintf(w, "record that they were removed: kbsync sources ack %s\n", idList(r.Gone))
		}
		if r.Unknown > 0 {
			fmt.Fprintf(w, "%s of unknown id not verified\n", console.Count(r.Unknown, "source"))
		}
	})
	if err != nil || len(r.Drifts) == 0 {
		return err
	}
	return engine.WithClass(engine.ClassDocumentsFailed, fmt.Errorf("%s different from the state; for sources removed by hand run "+
		"kbsync sources ack ID..., for the others kbsync reindex", console.Count(len(r.Drifts), "live source")))
}

// compare asks the API for sources and records the differences.
func (v *verification) compare(ctx context.Context, sources []state.Source) error {
	ids := make([]int64, len(sources))
	for i, s := range sources {
		ids[i] = s.ID
	}
	answers, err := replycx.CollectStatuses(ctx, ids, v.client.SourceStatus)
	if err != nil {
		return err
	}
	if len(sources) > 0 && !answers.Answered() {
		// The refusal of every id proves nothing about the sources unless the API accepts another request.
		if _, err := v.client.SourceStatus(ctx, []int64{0}); err != nil {
			return err
		}
	}
	for _, s := range sources {
		is, ok := answers.Found[s.ID]
		refusal := answers.Refused[s.ID]
		if !ok {
			// An answer may lack a source by mistake. Only a second answer counts.
			second, err := replycx.CollectStatuses(ctx, []int64{s.ID}, v.client.SourceStatus)
			if err != nil {
				return err
			}
			is, ok = second.Found[s.ID]
			refusal = second.Refused[s.ID]
		}
		if s.Standing != state.Live {
			v.result.LeftBehind++
			if refusal != nil || !ok {
				v.result.Gone = append(v.result.Gone, s.ID)
			}
			continue
		}
		v.result.Checked++
		drift := driftView{ID: s.ID, Sync: s.Sync, Key: s.Key, KnowledgeBase: s.Destination.KnowledgeBase, Known: s.Status}
		switch known := replycx.Status(s.Status); {
		case refusal != nil:
			drift.Drift, drift.Found = driftMissing, refusal.Error()
		case !ok:
			drift.Drift, drift.Found = driftMissing, "not in the answer of the API"
		case is.KnowledgeBaseID != 0 && is.KnowledgeBaseID != s.Destination.KnowledgeBase:
			drift.Drift = "knowledge-base"
			drift.Found, drift.Known = strconv.FormatInt(is.KnowledgeBaseID, 10), strconv.FormatInt(s.Destination.KnowledgeBase, 10)
		case known.Final() && !is.Status.Is(known):
			drift.Drift, drift.Found = "status", string(is.Status)
		default:
			continue
		}
		v.result.Drifts = append(v.result.Drifts, drift)
	}
	return nil
}
