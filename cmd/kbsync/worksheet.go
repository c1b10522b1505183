package main

import (
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/statuspage"
	"github.com/kbsync/kbsync/state"
)

// A sourceView is a row of the inventory.
type sourceView struct{ statuspage.SourceView }

func viewRow(s state.WorksheetRow) sourceView { return sourceView{statuspage.ViewSource(s)} }

// sourceID formats the id of a source. A source without a known id has a number of its own.
func sourceID(id int64) string { return statuspage.SourceID(id) }

// parseSourceID is the inverse of sourceID.
func parseSourceID(text string) (int64, error) {
	id, err := statuspage.ParseSourceID(text)
	if err != nil {
		return 0, usageError(console.Quoted(text) + " is not the id of a source; kbsync sources lists the ids")
	}
	return id, nil
}

// idList formats ids with spaces between them.
func idList(ids []int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = sourceID(id)
	}
	return strings.Join(texts, " ")
}

// documentList formats the documents that have the content of a source now, each with its sync if that is another one than of
// the source.
func (v sourceView) documentList() string {
	var texts []string
	for _, d := range v.Documents {
		if d.Sync != v.Sync {
			d.Key = d.Sync + ": " + d.Key
		}
		texts = append(texts, d.Key)
	}
	if v.MoreDocuments {
		texts = append(texts, "and more")
	}
	return strings.Join(texts, "; ")
}

// movedTo is documentList, or empty if only the document that the source was uploaded for has its content.
func (v sourceView) movedTo() string {
	if list := v.documentList(); list != v.Key {
		return list
	}
	return ""
}

// otherKey is the key, or empty if the name in ReplyCX shows it. The name has two underscores in place of a slash.
func (v sourceView) otherKey() string {
	if v.Name == strings.ReplaceAll(v.Key, "/", "__") {
		return ""
	}
	return v.Key
}

// sourceColumns returns the columns of the inventory. A person needs the brief columns of left-behind sources to remove the sources
// by hand. brief is set for a table or a page. Both have days in place of moments, and name the
// documents with the content only where the key does not.
func sourceColumns(leftBehind, brief bool) []console.Column[sourceView] {
	column := func(brief bool, name string, text func(sourceView) string) console.Column[sourceView] {
		return console.Column[sourceView]{Name: name, Brief: brief, Text: text}
	}
	all := !leftBehind
	documents := column(false, "documents", sourceView.documentList)
	name := column(leftBehind, "name", func(v sourceView) string { return v.Name })
	key := column(true, "key", func(v sourceView) string { return v.Key })
	moment := formatOptional
	if brief { // 80 cells hold the line of a document with a short key
		documents = column(all, "now", sourceView.movedTo)
		moment = formatDay
	}
	created := column(all, "created_at", func(v sourceView) string { return moment(&v.CreatedAt) })
	left := column(leftBehind, "left_at", func(v sourceView) string { return moment(v.LeftAt) })
	replaced := column(leftBehind, "replaced_by", func(v sourceView) string { return idList(v.ReplacedBy) })
	columns := []console.Column[sourceView]{
		column(true, "id", func(v sourceView) string { return sourceID(v.ID) }),
		column(true, "standing", func(v sourceView) string { return v.Standing }),
		column(true, "status", func(v sourceView) string { return v.Status }),
		column(true, "knowledge_base", func(v sourceView) string { return strconv.FormatInt(v.KnowledgeBase, 10) }),
		column(all, "sync", func(v sourceView) string { return v.Sync }),
		key,
		name,
		column(false, "type", func(v sourceView) string { return v.Type }),
		column(false, "errors", func(v sourceView) string { return v.Errors }),
		created,
		column(false, "settled_at", func(v sourceView) string { return formatOptional(v.SettledAt) }),
		column(false, "acked_at", func(v sourceView) string { return formatOptional(v.AckedAt) }),
		column(false, "sha256", func(v sourceView) string { return v.SHA256 }),
		column(false, "batch", func(v sourceView) string { return strconv.FormatInt(v.Batch, 10) }),
		column(false, "origin", func(v sourceView) string { return v.Origin }),
		column(false, "account", func(v sourceView) string { return v.Account }),
		left,
		replaced,
		documents,
	}
	switch { // The columns of unknown width come last, so that a narrow terminal breaks the lines there.
	case brief && leftBehind:
		return append(columns[:4:4], left, replaced, name, column(true, "key", sourceView.otherKey))
	case brief:
		return append(columns[:5:5], created, key, documents)
	}
	return columns
}

func (a *app) printSources(rows iter.Seq2[sourceView, error], leftBehind bool) error {
	columns := sourceColumns(leftBehind, a.out.Format != console.FormatCSV)
	if a.out.Format != console.FormatHTML {
		return console.PrintRows(a.out, columns, rows)
	}
	p := console.Page{
		Title: "Sources in the inventory of kbsync", Written: a.now(),
		Note: "Each row is a source that kbsync uploaded to a ReplyCX knowledge base.",
	}
	if leftBehind {
		p = console.Page{
			Title: "Sources to remove by hand", Written: a.now(),
			Note: "Each row is a source that answers wrongly: no document has its content any more, or a newer source has it, too. Remove " +
				"it in ReplyCX, in its knowledge base, and tick it here. A source without an id is found by its name and its age. When you have finished, or " +
				"at any time, run the command below, so that kbsync lists the removed sources no more.",
			Command: "kbsync sources ack",
		}
	}
	return console.PrintPage(a.out, p, columns, rows, func(v sourceView) string {
		if v.Standing == string(state.Superseded) || v.Standing == string(state.Orphaned) {
			return sourceID(v.ID)
		}
		return ""
	})
}

// A duplicateView is a document that may be in the knowledge base twice.
type duplicateView struct {
	Sync       string    `json:"sync"`
	Key        string    `json:"key"`
	Class      string    `json:"class"`
	Batch      int64     `json:"batch"`
	ResentAs   int64     `json:"resent_as,omitempty"`
	SHA256     string    `json:"sha256"`
	At         time.Time `json:"at"`
	LeftBehind bool      `json:"left_behind"`
	// KnownSources are the ids of the sources with the same content that the inventory has. Any other source with this
	// content is the duplicate.
	KnownSources []int64 `json:"known_sources"`
}

func viewDuplicate(d state.PossibleDuplicate) duplicateView {
	return duplicateView{d.Sync, d.Key, d.Class, d.Batch, d.ResentAs, hexOf(d.SHA256), d.At, d.LeftBehind, append([]int64{}, d.KnownSources...)}
}

func duplicateColumns() []console.Column[duplicateView] {
	return []console.Column[duplicateView]{
		console.Brief("class", func(v duplicateView) string { return v.Class }),
		console.Brief("sync", func(v duplicateView) string { return v.Sync }),
		console.Brief("key", func(v duplicateView) string { return v.Key }),
		console.Brief("batch", func(v duplicateView) string { return strconv.FormatInt(v.Batch, 10) }),
		console.Brief("resent_as", func(v duplicateView) string {
			if v.ResentAs == 0 {
				return ""
			}
			return strconv.FormatInt(v.ResentAs, 10)
		}),
		console.Brief("at", func(v duplicateView) string { return v.At.UTC().Format(time.RFC3339) }),
		console.Brief("left_behind", func(v duplicateView) string { return strconv.FormatBool(v.LeftBehind) }),
		console.Detail("sha256", func(v duplicateView) string { return v.SHA256 }),
		console.Brief("known_sources", func(v duplicateView) string { return idList(v.KnownSources) }),
	}
}

func (a *app) printDuplicates(duplicates iter.Seq2[state.PossibleDuplicate, error]) error {
	rows := mapped(duplicates, viewDuplicate)
	if a.out.Format != console.FormatHTML {
		return console.PrintRows(a.out, duplicateColumns(), rows)
	}
	return console.PrintPage(a.out, console.Page{
		Title: "Documents that may be in the knowledge base twice", Written: a.now(),
		Note: "The API did not answer the upload of these documents, or refused it as a whole and accepted them later. Look for the key " +
			"in the knowledge base: the known sources are in the inventory of kbsync, and another source of this name from that time " +
			"is the duplicate, which you can remove.",
	}, duplicateColumns(), rows, func(duplicateView) string { return "" })
}
