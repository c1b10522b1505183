package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
)

func (a *app) adoptCommand() *cobra.Command {
	var listing string
	var strays bool
	var o passOptions
	cmd := &cobra.Command{
		Use:   "adopt [NAME | ROOT]",
		Short: "Take the documents on the root as uploaded, without sending them",
		Long: `adopt is for a state that was lost. It scans the root and records each document that the state does not know as uploaded and
trained. It sends no document, and the next sync uploads only what has changed since.

The API cannot list sources, so their ids are unknown unless you have a listing of them: a CSV file whose first line names the
columns id and key or name, the JSON or CSV of kbsync sources, or only ids, a line each. adopt asks the API for the name of each
id. A document is found by its content, its key or its name; of several sources with one name the newest is the document's, and
the others are superseded. Documents that the listing does not have stay pending.

Without a listing each document gets a source of unknown id, such as unknown-7. It is listed and acknowledged like others.
adopt cannot know what was uploaded: run it before the documents change, and restore a backup instead if there is one.`,
		Example: `  kbsync state adopt handbook
  kbsync state adopt handbook --listing sources.csv`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if strays && listing == "" {
				return usageError("--strays needs --listing")
			}
			cfg, err := a.load(cmd, args...)
			if err != nil {
				return err
			}
			return a.adopt(cmd.Context(), cfg, o, listing, strays)
		},
	}
	syncFlags(cmd)
	acceptFlags(cmd, &o)
	cmd.Flags().StringVar(&listing, "listing", "", "A file with the ids of the sources in the knowledge base; - reads stdin.")
	cmd.Flags().BoolVar(&strays, "strays", false, "Record the listed sources that no document has as orphaned, to remove by hand.")
	return cmd
}

func (a *app) adopt(ctx context.Context, cfg *config.Config, o passOptions, path string, strays bool) (err error) {
	syncs, err := selected(cfg)
	if err != nil {
		return err
	}
	var listing *engine.Listing
	if path != "" {
		if listing, err = a.listingFor(syncs, path); err != nil {
			return err
		}
	}
	api, err := a.connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.close()) }()
	store, err := a.open(ctx, cfg, false)
	if err != nil {
		return err
	}
	defer closeStore(store, &err)
	options := engine.AdoptOptions{Options: a.engineOptions(cfg, store, api, o), Listing: listing, Strays: strays}
	var views []adoptView
	unread := 0
	for _, s := range syncs {
		r, err := engine.Adopt(ctx, options, s)
		if err != nil {
			return err
		}
		unread += r.Unread
		views = append(views, viewAdoption(s.Name, r))
	}
	if err := a.out.Result(views, func(w io.Writer) {
		for _, v := range views {
			v.print(w, path)
		}
	}); err != nil {
		return err
	}
	if unread > 0 {
		return engine.WithClass(engine.ClassTemporary, fmt.Errorf("%s not adopted, because they could not be read or changed meanwhile; "+
			"run kbsync state adopt again, or the next sync uploads them", console.Count(unread, "document")))
	}
	return nil
}

// listingFor reads the listing of a sync.
func (a *app) listingFor(syncs []config.Sync, path string) (*engine.Listing, error) {
	if len(syncs) > 1 {
		return nil, usageError("a listing is of one knowledge base: name the sync, such as kbsync state adopt " +
			console.Printable(syncs[0].Name) + " --listing FILE")
	}
	listing, err := readListing(path, a.stdin)
	if err == nil && syncs[0].UploadName == config.Base && listing.HasNamesOnly() {
		return nil, usageError("with upload_name: base several documents may have one name, so the listing needs a column key")
	}
	return listing, err
}

// An adoptView is the result of adopt for one sync.
type adoptView struct {
	Sync       string  `json:"sync"`
	Adopted    int     `json:"adopted"`
	Identified int     `json:"identified"`
	Former     int     `json:"former"`
	Unlisted   int     `json:"unlisted"`
	Changed    int     `json:"changed"`
	Unread     int     `json:"unread"`
	Missing    []int64 `json:"missing"`
	Strays     []int64 `json:"strays"`
	Recorded   bool    `json:"strays_recorded"`
}

func viewAdoption(name string, r engine.AdoptResult) adoptView {
	return adoptView{
		name, r.Adopted, r.Identified, r.Former, r.Unlisted, r.Changed, r.Unread,
		append([]int64{}, r.Missing...), append([]int64{}, r.Strays...), r.Recorded,
	}
}

// maxIDs is how many ids a line of text has.
const maxIDs = 20

func someIDs(ids []int64) string {
	if len(ids) > maxIDs {
		return fmt.Sprintf("%s and %d more", idList(ids[:maxIDs]), len(ids)-maxIDs)
	}
	return idList(ids)
}

func (v adoptView) print(w io.Writer, listing string) {
	name := console.Printable(v.Sync)
	fmt.Fprintf(w, "%s: %s taken as uploaded, %d with known ids; nothing was sent\n", name, console.Count(v.Adopted, "document"), v.Identified)
	if v.Former > 0 {
		fmt.Fprintf(w, "  %s superseded by newer ones; remove them by hand (kbsync sources --left-behind)\n", console.Count(v.Former, "older source"))
	}
	if v.Changed > 0 {
		fmt.Fprintf(w, "  %s listed with another content; the next sync uploads them\n", console.Count(v.Changed, "document"))
	}
	if v.Unlisted > 0 {
		fmt.Fprintf(w, "  %s not listed; the next sync uploads them, unless you take them as uploaded, too: kbsync state adopt %s\n",
			console.Count(v.Unlisted, "document"), name)
	}
	if len(v.Missing) > 0 {
		fmt.Fprintf(w, "  not in the knowledge base: %s\n", someIDs(v.Missing))
	}
	switch {
	case len(v.Strays) > 0 && v.Recorded:
		fmt.Fprintf(w, "  recorded as orphaned: %s\n", someIDs(v.Strays))
	case len(v.Strays) > 0:
		fmt.Fprintf(w, "  listed, but no document has them: %s\n", someIDs(v.Strays))
		fmt.Fprintf(w, "  if kbsync uploaded them, record them as orphaned: kbsync state adopt %s --listing %s --strays\n", name, console.Printable(listing))
	}
	if v.Adopted > 0 && v.Identified < v.Adopted {
		fmt.Fprintf(w, "  if they were never uploaded, upload them: kbsync reindex %s --all\n", name)
	}
}
