package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

func (a *app) explainCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "explain PATH",
		Short: "Show whether a sync uploads a file, and why",
		Long: `explain prints, for each sync whose root contains PATH, whether the sync uploads the file, the rule that decides it, the
place of that rule, and the state of the document. If the file is new or has changed, explain reads it, and prints what the next sync
would do with it. PATH is the path of a file or a key below the root.`,
		Example: `  kbsync explain docs/drafts/prices.md
  kbsync explain docs/prices.pdf --json`,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var selection []string
			if name != "" {
				selection = append(selection, name)
			}
			cfg, err := a.load(cmd, selection...)
			if err != nil {
				return err
			}
			return a.explain(cmd.Context(), cfg, args[0])
		},
	}
	cmd.Flags().StringVar(&name, "sync", "", "Name or root of a sync. Default: every sync whose root contains the path.")
	syncFlags(cmd)
	return cmd
}

// An explainResult explains a path for one sync.
type explainResult struct {
	Sync     string        `json:"sync"`
	Key      string        `json:"key"`
	Uploaded bool          `json:"uploaded"` // once the file has settled
	Reason   string        `json:"reason"`
	Rule     string        `json:"rule,omitempty"`
	Place    string        `json:"place,omitempty"`
	Document *documentView `json:"document,omitempty"`
	// Now is what the next sync would do with the file; nil if the file is the one that the state knows, or if no sync takes it.
	Now *explainedFile `json:"now,omitempty"`
}

// An explainedFile is the action for a file as it is now.
type explainedFile struct {
	Action string `json:"action"` // as in a plan
	Reason string `json:"reason,omitempty"`
}

func (a *app) explain(ctx context.Context, cfg *config.Config, path string) (err error) {
	if len(cfg.Selected) == 0 {
		return usageError("no config names a sync; name the root: kbsync explain PATH --sync ./docs --knowledge-base 876")
	}
	syncs, err := selected(cfg)
	if err != nil {
		return err
	}
	store, err := a.open(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	list := []explainResult{}
	for _, s := range syncs {
		key, ok := path, true // in a bucket
		if s.Root.Dir != "" {
			key, ok = keyBelow(s.Root.Dir, path)
		}
		if !ok {
			continue
		}
		e, err := a.explainKey(ctx, cfg, s, store, key)
		if err != nil {
			return err
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return usageError(fmt.Sprintf("no sync has a root that contains %s", console.Quoted(path)))
	}
	return a.out.Result(list, func(w io.Writer) {
		for _, e := range list {
			e.print(w)
		}
	})
}

func (a *app) explainKey(ctx context.Context, cfg *config.Config, s config.Sync, store *state.Store, key string) (explainResult, error) {
	root, err := a.openRoot(cfg, s)
	if err != nil {
		return explainResult{}, err
	}
	defer func() { _ = root.Close() }()
	x, err := root.Explain(ctx, key)
	if err != nil {
		return explainResult{}, err
	}
	e := explainResult{Sync: s.Name, Key: x.Key, Uploaded: x.Taken, Reason: x.Reason, Rule: x.Rule, Place: x.Place}
	known, err := store.Syncs.Get(ctx, s.Name)
	var d state.Document
	if err == nil {
		d, err = store.Documents.Get(ctx, known.ID, key)
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return e, err
	}
	if e.Uploaded {
		if err := e.look(ctx, s, store, root, known, d); err != nil {
			return e, err
		}
	}
	if d.ID == 0 {
		return e, nil
	}
	if e.Uploaded && e.Now == nil && d.State == state.Skipped && state.IsBlocked(d.Reason) {
		e.Uploaded, e.Reason, e.Rule, e.Place = false, d.Reason, "", ""
	}
	v, err := viewDocument(ctx, store, known, d)
	e.Document = &v
	return e, err
}

// look reads the file unless the state knows it as it is.
func (e *explainResult) look(ctx context.Context, s config.Sync, store *state.Store, root *engine.CountingRoot,
	known state.Sync, d state.Document) error {
	estimate := engine.Estimate{
		Store: store, Root: root, Destination: known.Destination, Checkers: 1,
		Policy: engine.PreflightPolicy(s), SyncID: known.ID, Resaved: s.Resaved,
		Report: func(i engine.PlanItem) bool {
			e.Now = &explainedFile{string(i.Action), i.Reason}
			return true
		},
	}
	for entry, err := range root.List(ctx, e.Key) {
		if err != nil {
			return err
		}
		if entry.Key != e.Key || d.ID != 0 && entry.Fingerprint == d.Fingerprint && d.State != state.Pending {
			continue
		}
		candidate := engine.Candidate{Key: entry.Key, Fingerprint: entry.Fingerprint}
		if err := estimate.Add(ctx, func(yield func(engine.Candidate, error) bool) { yield(candidate, nil) }); err != nil {
			return err
		}
	}
	if e.Now != nil && e.Now.Action == string(engine.ActionBlock) {
		e.Uploaded, e.Reason, e.Rule, e.Place = false, "blocked: "+e.Now.Reason, "", ""
	}
	return nil
}

func (e explainResult) print(w io.Writer) {
	verdict := "is not uploaded"
	if e.Uploaded {
		verdict = "is uploaded"
	}
	fmt.Fprintf(w, "%s: %s %s: %s", console.Printable(e.Sync), console.Printable(e.Key), verdict, console.Printable(e.Reason))
	if rule := strings.Trim(e.Place+": "+e.Rule, ": "); rule != "" {
		fmt.Fprintf(w, " (%s)", console.Printable(rule))
	}
	fmt.Fprintln(w)
	if e.Now != nil {
		fmt.Fprintf(w, "  as it is now: %s", e.Now.Action)
		if e.Now.Reason != "" {
			fmt.Fprintf(w, " (%s)", console.Printable(e.Now.Reason))
		}
		fmt.Fprintln(w)
	}
	if e.Document == nil {
		fmt.Fprintln(w, "  not in the state yet")
		return
	}
	fmt.Fprintf(w, "  in the state: %s", e.Document.State)
	if e.Document.Reason != "" {
		fmt.Fprintf(w, ", %s", console.Printable(e.Document.Reason))
	}
	fmt.Fprintln(w)
	if e.Document.Resaved != nil {
		fmt.Fprintf(w, "  not uploaded again: %s\n", resavedText(*e.Document.Resaved))
	}
}

// keyBelow returns the key of a path below a root. The path lies in the root, or is itself a key.
func keyBelow(root, path string) (string, bool) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	for _, r := range []string{root, resolved(root)} {
		for _, p := range []string{absolute, resolved(absolute)} {
			rel, err := filepath.Rel(r, p)
			if err == nil && rel != ".." && rel != "." && !strings.HasPrefix(rel, ".."+string(os.PathSeparator)) {
				return filepath.ToSlash(rel), true
			}
		}
	}
	if !filepath.IsAbs(path) && !looksLikeRoot(path) {
		return filepath.ToSlash(path), true
	}
	return "", false
}

// resolved resolves the links in the directory of a path, if the directory exists. The last element may still be a link.
func resolved(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}
