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
	"github.com/kbsync/kbsync/state"
)

func (a *app) explainCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "explain PATH",
		Short: "Tell whether a file would be uploaded, and why",
		Long: `explain tells of each sync whose root has the path whether it would be uploaded, which rule decides that and where the
rule stands, and how the document stands in the state. PATH is a file's path, or a key below the root.`,
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
	cmd.Flags().StringVar(&name, "sync", "", "Name or root of the sync to explain it for; by default all that have the path.")
	syncFlags(cmd)
	return cmd
}

// An explained is what explain tells of a path for one sync.
type explained struct {
	Sync     string        `json:"sync"`
	Key      string        `json:"key"`
	Uploaded bool          `json:"uploaded"` // by the rules, once it has settled
	Reason   string        `json:"reason"`
	Rule     string        `json:"rule,omitempty"`
	Place    string        `json:"place,omitempty"`
	Document *documentView `json:"document,omitempty"`
}

func (a *app) explain(ctx context.Context, cfg *config.Config, path string) (err error) {
	if len(cfg.Selected) == 0 {
		return usageError("no config names a sync, so say which root is meant: kbsync explain PATH --sync ./docs --knowledge-base 876")
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
	list := []explained{}
	for _, s := range syncs {
		key, ok := path, true // of a bucket
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
		return usageError(fmt.Sprintf("%s is below the root of no sync", quoted(path)))
	}
	return a.out.result(list, func(w io.Writer) {
		for _, e := range list {
			e.print(w)
		}
	})
}

func (a *app) explainKey(ctx context.Context, cfg *config.Config, s config.Sync, store *state.Store, key string) (explained, error) {
	root, err := a.openRoot(cfg, s)
	if err != nil {
		return explained{}, err
	}
	defer func() { _ = root.Close() }()
	x, err := root.Explain(ctx, key)
	if err != nil {
		return explained{}, err
	}
	e := explained{Sync: s.Name, Key: x.Key, Uploaded: x.Taken, Reason: x.Reason, Rule: x.Rule, Place: x.Place}
	known, err := store.Syncs.Get(ctx, s.Name)
	if errors.Is(err, state.ErrNotFound) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	d, err := store.Documents.Get(ctx, known.ID, key)
	if errors.Is(err, state.ErrNotFound) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	v, err := viewDocument(ctx, store, known, d)
	e.Document = &v
	return e, err
}

func (e explained) print(w io.Writer) {
	verdict := "is not uploaded"
	if e.Uploaded {
		verdict = "is uploaded"
	}
	fmt.Fprintf(w, "%s: %s %s: %s", printable(e.Sync), printable(e.Key), verdict, printable(e.Reason))
	if rule := strings.Trim(e.Place+": "+e.Rule, ": "); rule != "" {
		fmt.Fprintf(w, " (%s)", printable(rule))
	}
	fmt.Fprintln(w)
	if e.Document == nil {
		fmt.Fprintln(w, "  the state does not know it yet")
		return
	}
	fmt.Fprintf(w, "  in the state: %s", e.Document.State)
	if e.Document.Reason != "" {
		fmt.Fprintf(w, ", %s", printable(e.Document.Reason))
	}
	fmt.Fprintln(w)
}

// keyBelow gives the key that a path has below a root: of a path in the root, or of one that is a key itself.
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
	if !filepath.IsAbs(path) && !looksLikePlace(path) {
		return filepath.ToSlash(path), true
	}
	return "", false
}

// resolved follows the links of a path's directory, as far as it is there. The last element may be a link itself.
func resolved(path string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return path
	}
	return filepath.Join(dir, filepath.Base(path))
}
