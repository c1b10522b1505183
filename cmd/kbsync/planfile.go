package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbsync/kbsync/internal/atomicfile"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
)

// planFormat is the version of plan files. It grows when an older kbsync would misread them.
const planFormat = 1

// A planFile is a plan as plan --out writes it and apply reads it.
type planFile struct {
	Format    int       `json:"kbsync_plan"`
	CreatedAt time.Time `json:"created_at"`
	// Inventory is the ID of the state that the plan was made with; empty if that held nothing.
	Inventory string `json:"inventory,omitempty"`
	// Arguments and Settings are those of the command line that shape the plan. Paths are relative to the working directory. The settings
	// are those of a sync: another one could send the token elsewhere, and a plan may come from another person.
	Arguments []string            `json:"arguments,omitempty"`
	Settings  map[string][]string `json:"settings,omitempty"`
	Syncs     []*syncPlan         `json:"syncs"`
}

// A syncPlan is the plan of one sync.
type syncPlan struct {
	Sync        string `json:"sync"`
	Root        string `json:"root"`
	Destination struct {
		API           string `json:"api"`
		Account       string `json:"account,omitempty"`
		KnowledgeBase int64  `json:"knowledge_base"`
	} `json:"destination"`

	Upload     int             `json:"upload"`
	Bytes      int64           `json:"bytes"`
	Batches    int             `json:"batches"` // requests, if none is refused
	NewSources int             `json:"new_sources"`
	Share      int             `json:"share"`
	Resaved    int             `json:"resaved"` // saved again with only their metadata changed; not uploaded
	Block      int             `json:"block"`   // they can never train
	Remove     int             `json:"remove"`
	Unchanged  int             `json:"unchanged"`
	Unsettled  int             `json:"unsettled"`
	Skipped    map[string]int  `json:"skipped"` // documents that must not be uploaded, by reason
	LeftOut    *leftOutView    `json:"left_out,omitempty"`
	LeftBehind []plannedSource `json:"left_behind"`
	Documents  []planItem      `json:"documents,omitempty"`
	// Error is why the plan cannot be applied: a guard would halt the sync, or a part of the root could not be read.
	Error string `json:"error,omitempty"`

	listed int // documents on the root
}

// A plannedSource is a source that answers with an old text once the plan is applied.
type plannedSource struct {
	Source   int64  `json:"source"`
	Document string `json:"document"`
	Why      string `json:"why"` // changed or removed
}

// A planItem is the action that sync would take for one document.
type planItem struct {
	Sync   string `json:"sync"`
	Action string `json:"action"` // upload, share, resaved, fail, block, remove, skip, unreadable
	Key    string `json:"key"`
	// KeyBytes is the key if it is no UTF-8, and Key only resembles it.
	KeyBytes    []byte          `json:"key_bytes,omitempty"`
	Size        int64           `json:"size"`
	SHA256      string          `json:"sha256,omitempty"`
	Reason      string          `json:"reason,omitempty"`
	Fingerprint planFingerprint `json:"fingerprint"`
}

// A planFingerprint is what the listing showed. It is for people: apply compares contents, because a checkout on another machine has
// other times.
type planFingerprint struct {
	MTime time.Time `json:"mtime,omitzero"`
	CTime time.Time `json:"ctime,omitzero"`
	Inode uint64    `json:"inode,omitempty"`
	ETag  string    `json:"etag,omitempty"`
}

func newPlanItem(sync string, i engine.PlanItem) planItem {
	item := planItem{Sync: sync, Action: string(i.Action), Key: i.Key, Size: i.Size, SHA256: hexOf(i.SHA256), Reason: i.Reason}
	if !utf8.ValidString(i.Key) {
		item.KeyBytes = []byte(i.Key)
	}
	f := i.Fingerprint
	item.Fingerprint = planFingerprint{Inode: f.Inode, ETag: f.ETag}
	if f.MTime != 0 {
		item.Fingerprint.MTime = time.Unix(0, f.MTime).UTC()
	}
	if f.CTime != 0 {
		item.Fingerprint.CTime = time.Unix(0, f.CTime).UTC()
	}
	return item
}

// planFlags returns the flags of the command line that shape a plan.
func planFlags(cmd *cobra.Command) map[string][]string {
	given := map[string][]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if s, ok := f.Value.(*setting); ok && inPlan(s.Setting) {
			given[f.Name] = s.values
		}
	})
	return given
}

// inPlan reports whether a setting of the command line belongs into a plan.
func inPlan(s config.Setting) bool { return s.Scope == config.ScopeSync && s.PerSync() }

// encode writes the plan as JSON.
func (p *planFile) encode(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(p)
}

// write keeps the plan in a file.
func (p *planFile) write(path string) error {
	if err := atomicfile.Write(path, p.encode); err != nil {
		return fmt.Errorf("write plan: %w", err)
	}
	return nil
}

// readPlan reads the file of a plan.
func readPlan(path string) (*planFile, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usageError(fmt.Sprintf("the plan %s does not exist; kbsync plan --out %s writes one", console.Quoted(path), console.Printable(path)))
	}
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("read plan: %w", err))
	}
	plan, err := decodePlan(data)
	if err != nil {
		return nil, usageError(fmt.Sprintf("%s %s", console.Quoted(path), err))
	}
	return plan, nil
}

var errNoPlan = errors.New("is no plan; kbsync plan --out FILE writes one")

// decodePlan decodes what encode writes. Its error is the end of a sentence about the file.
func decodePlan(data []byte) (*planFile, error) {
	var p planFile
	if err := json.Unmarshal(data, &p); err != nil || p.Format == 0 || slices.Contains(p.Syncs, nil) {
		return nil, errNoPlan
	}
	if p.Format != planFormat {
		return nil, fmt.Errorf("has the format %d, and this kbsync knows %d; make a new plan with kbsync plan --out", p.Format, planFormat)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Settings)) {
		if !slices.ContainsFunc(config.Settings(), func(s config.Setting) bool { return s.Name == name && inPlan(s) }) {
			return nil, fmt.Errorf("has the flag --%s, which a plan must not set; make a new plan with kbsync plan --out", name)
		}
	}
	for _, s := range p.Syncs {
		for i := range s.Documents {
			if d := &s.Documents[i]; d.KeyBytes != nil {
				d.Key = string(d.KeyBytes)
			}
		}
	}
	return &p, nil
}
