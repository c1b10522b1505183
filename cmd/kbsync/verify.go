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
		Short: "Compare the live sources in the state with the API",
		Long: `verify asks the API for the status of every live source and prints the sources that differ from the state: sources that are
missing from the knowledge base, that have another status than at the end of their training, or that are in another knowledge
base. It changes nothing. If a person removed a source, run kbsync sources ack ID...; the next sync then uploads its documents
again.

The exit code is 6 if a source differs.`,
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

// A verification compares the inventory with the answers of the API.
type verification struct {
	client  *replycx.Client
	checked int
	drifts  []driftView
}

func (a *app) verify(ctx context.Context, cfg *config.Config, args []string) (err error) {
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	filter := state.SourceFilter{Standings: []state.Standing{state.Live}}
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
	v := verification{client: api.client.Client, drifts: []driftView{}}
	var chunk []state.Source
	elsewhere := 0
	for s, err := range store.Inventory.Sources(ctx, filter) {
		if err != nil {
			return err
		}
		if !api.engine(cfg).Serves(s.Destination) {
			elsewhere++
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
	if elsewhere > 0 {
		a.out.Log.Warn("verify skipped the sources of another API or account", "sources", elsewhere, "api", api.origin)
	}
	return a.reportDrifts(verifyResult{v.checked, elsewhere, v.drifts})
}

// A verifyResult is the result of verify.
type verifyResult struct {
	Checked   int         `json:"checked"`
	Elsewhere int         `json:"elsewhere"` // sources of another API or account, which verify skipped
	Drifts    []driftView `json:"drifts"`
}

// reportDrifts prints the result. It returns an error if a source differs.
func (a *app) reportDrifts(r verifyResult) error {
	err := a.out.Result(r, func(w io.Writer) {
		for _, d := range r.Drifts {
			fmt.Fprintf(w, "%d  %s: %s, in the state: %s  (%s: %s)\n",
				d.ID, d.Drift, console.Printable(d.Found), console.Printable(d.Known), console.Printable(d.Sync), console.Printable(d.Key))
		}
		fmt.Fprintf(w, "%s verified, %d different from the state\n", console.Count(r.Checked, "live source"), len(r.Drifts))
	})
	if err != nil || len(r.Drifts) == 0 {
		return err
	}
	return engine.WithClass(engine.ClassDocumentsFailed, fmt.Errorf("%s different from the state; for sources removed by hand run "+
		"kbsync sources ack ID..., for the others kbsync reindex", console.Count(len(r.Drifts), "source")))
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
		v.checked++
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
		drift := driftView{ID: s.ID, Sync: s.Sync, Key: s.Key, KnowledgeBase: s.Destination.KnowledgeBase, Known: s.Status}
		switch known := replycx.Status(s.Status); {
		case refusal != nil:
			drift.Drift, drift.Found = "missing", refusal.Error()
		case !ok:
			drift.Drift, drift.Found = "missing", "not in the answer of the API"
		case is.KnowledgeBaseID != 0 && is.KnowledgeBaseID != s.Destination.KnowledgeBase:
			drift.Drift = "knowledge-base"
			drift.Found, drift.Known = strconv.FormatInt(is.KnowledgeBaseID, 10), strconv.FormatInt(s.Destination.KnowledgeBase, 10)
		case known.Final() && !is.Status.Is(known):
			drift.Drift, drift.Found = "status", string(is.Status)
		default:
			continue
		}
		v.drifts = append(v.drifts, drift)
	}
	return nil
}
