package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

func (a *app) verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [NAME]",
		Short: "Ask for every live source again, and report what is not as the state has it",
		Long: `verify asks the API for the status of every source that documents rely on, and prints those that are not as the state has
them: missing from the knowledge base, with another status than at the end of their training, or in another knowledge base.
It changes nothing. What was removed by hand is told with kbsync sources ack ID...: its documents are uploaded again then.

The exit code is 6 if anything is not as it should be.`,
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

// A driftView is a source that is not as the state has it.
type driftView struct {
	ID            int64  `json:"id"`
	Drift         string `json:"drift"` // missing, status or knowledge-base
	Sync          string `json:"sync"`
	Key           string `json:"key"`
	KnowledgeBase int64  `json:"knowledge_base"`
	Known         string `json:"known"`
	Found         string `json:"found"`
}

// verifyAtOnce is how many sources one request asks for.
const verifyAtOnce = 100

// A verification compares the inventory with what the API says of it.
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
		if chunk = append(chunk, s); len(chunk) == verifyAtOnce {
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
		a.out.log.Warn("sources of another API or account were not asked for", "sources", elsewhere, "api", api.origin)
	}
	result := struct {
		Checked   int         `json:"checked"`
		Elsewhere int         `json:"elsewhere"`
		Drifts    []driftView `json:"drifts"`
	}{v.checked, elsewhere, v.drifts}
	if err := a.out.result(result, func(w io.Writer) {
		for _, d := range v.drifts {
			fmt.Fprintf(w, "%d  %s: %s, known as %s  (%s: %s)\n", d.ID, d.Drift, printable(d.Found), printable(d.Known), printable(d.Sync), printable(d.Key))
		}
		fmt.Fprintf(w, "%s verified, %d not as the state has them\n", count(v.checked, "live source"), len(v.drifts))
	}); err != nil {
		return err
	}
	if len(v.drifts) > 0 {
		return &exitError{exitFailed, fmt.Errorf("%s not as the state has them; tell of those that were removed by hand with kbsync sources ack ID..., and upload the others "+
			"again with kbsync reindex", count(len(v.drifts), "source"))}
	}
	return nil
}

// compare asks for sources, and notes those that are not as they are known.
func (v *verification) compare(ctx context.Context, sources []state.Source) error {
	if len(sources) == 0 {
		return nil
	}
	ids := make([]int64, len(sources))
	for i, s := range sources {
		ids[i] = s.ID
	}
	found := map[int64]replycx.SourceStatus{}
	if err := v.ask(ctx, ids, found); err != nil {
		return err
	}
	for _, s := range sources {
		v.checked++
		if _, ok := found[s.ID]; !ok {
			// An answer may lack one by mistake, or be cut short.
			if err := v.ask(ctx, []int64{s.ID}, found); err != nil && !unknownSource(err) {
				return err
			}
		}
		drift := driftView{ID: s.ID, Sync: s.Sync, Key: s.Key, KnowledgeBase: s.Destination.KnowledgeBase, Known: s.Status}
		is, ok := found[s.ID]
		switch known := replycx.Status(s.Status); {
		case !ok:
			drift.Drift, drift.Found = "missing", "not in the API's answer"
		case is.KnowledgeBaseID != 0 && is.KnowledgeBaseID != s.Destination.KnowledgeBase:
			drift.Drift, drift.Found, drift.Known = "knowledge-base", strconv.FormatInt(is.KnowledgeBaseID, 10), strconv.FormatInt(s.Destination.KnowledgeBase, 10)
		case known.Final() && !is.Status.Is(known):
			drift.Drift, drift.Found = "status", string(is.Status)
		default:
			continue
		}
		v.drifts = append(v.drifts, drift)
	}
	return nil
}

// unknownSource says whether the API answers in so many words that it does not know what it was asked for. What it says then of a
// single source is not documented.
func unknownSource(err error) bool {
	e, ok := errors.AsType[*replycx.Error](err)
	return ok && e.FromAPI && e.Class() == replycx.ClassNotFound
}

func (v *verification) ask(ctx context.Context, ids []int64, found map[int64]replycx.SourceStatus) error {
	statuses, err := v.client.SourceStatus(ctx, ids)
	if err != nil {
		return err
	}
	for _, s := range statuses {
		found[s.ID] = s
	}
	return nil
}
