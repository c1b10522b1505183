package state

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// exportFormat is the version of the lines that Export writes.
const exportFormat = 3

// A table's columns in the order of an export. Parents come before children.
type table struct {
	name    string
	columns []string
	order   string
}

var tables = []table{
	{
		"destinations",
		[]string{
			"id", "origin", "account", "knowledge_base", "uncertain_streak", "probe_batch", "paused_until",
			"largest_accepted", "smallest_refused",
		},
		"id",
	},
	{
		"syncs",
		[]string{
			"id", "name", "destination_id", "root", "root_identity", "scan", "scanned_at", "gate", "last_error",
			"created_at", "forgotten_at",
		},
		"id",
	},
	{
		"contents",
		[]string{
			"id", "destination_id", "sha256", "scope", "size", "state", "batch_id", "document_id", "since", "source_id",
			"polls", "next_poll", "prior_state", "prior_batch", "resends", "reason",
		},
		"id",
	},
	{
		"failed_endings",
		[]string{"content_id", "ending"},
		"content_id, ending",
	},
	{
		"cores",
		[]string{"content_id", "core"},
		"content_id",
	},
	{
		"documents",
		[]string{
			"id", "sync_id", "key", "size", "mtime", "ctime_offset", "inode", "etag", "state", "content_id", "forced", "claim",
			"attempts", "next_attempt", "vanished", "changed_at", "reason",
		},
		"id",
	},
	{
		"past_contents",
		[]string{"content_id", "document_id", "until"},
		"content_id, document_id",
	},
	{
		"resaves",
		[]string{"document_id", "content_id", "sha256", "since"},
		"document_id",
	},
	{
		"batches",
		[]string{
			"id", "sync_id", "destination_id", "state", "owner", "resend_of", "documents", "bytes", "created_at", "sealed_at",
			"ended_at", "status_code", "code", "message",
		},
		"id",
	},
	{
		"members",
		[]string{"batch_id", "document_id", "content_id"},
		"batch_id, document_id",
	},
	{
		"sources",
		[]string{
			"destination_id", "source_id", "content_id", "batch_id", "document_id", "name", "type", "status", "outcome",
			"errors", "created_at", "outcome_at", "polls", "next_poll", "acked_at",
		},
		"destination_id, source_id",
	},
}

// A line of an export is one of: the header, a row, the end. An export without an end was cut off.
type line struct {
	Format    int            `json:"kbsync_state,omitempty"`
	Inventory string         `json:"inventory,omitempty"` // of the header
	Table     string         `json:"table,omitempty"`
	Row       map[string]any `json:"row,omitempty"`
	End       *int           `json:"rows,omitempty"`
}

// Export writes the state as JSON lines, as of one moment; other processes may write to it meanwhile. Hashes are in
// hexadecimal. A key is text if it is UTF-8, else {"base64": …}. The last line counts the rows.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.export(ctx, w); err != nil {
		return fmt.Errorf("export state: %w", err)
	}
	return nil
}

func (s *db) export(ctx context.Context, w io.Writer) error {
	return s.snapshot(ctx, func(query queryFunc) error { return exportTo(w, query) })
}

func exportTo(w io.Writer, query queryFunc) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	header := line{Format: exportFormat}
	if err := query(`SELECT id FROM inventory`, nil, func(scan func(...any) error) error { return scan(&header.Inventory) }); err != nil {
		return err
	}
	if err := enc.Encode(header); err != nil {
		return err
	}
	count := 0
	for _, t := range tables {
		values := make([]any, len(t.columns))
		into := make([]any, len(t.columns))
		for i := range values {
			into[i] = &values[i]
		}
		text := `SELECT ` + strings.Join(t.columns, ", ") + ` FROM ` + t.name + ` ORDER BY ` + t.order
		err := query(text, nil, func(scan func(...any) error) error {
			if err := scan(into...); err != nil {
				return err
			}
			row := make(map[string]any, len(values))
			for i, v := range values {
				row[t.columns[i]] = portable(t.columns[i], v)
			}
			count++
			return enc.Encode(line{Table: t.name, Row: row})
		})
		if err != nil {
			return err
		}
	}
	if err := enc.Encode(line{End: &count}); err != nil {
		return err
	}
	return out.Flush()
}

// isHash reports whether a column has hashes, which an export has in hexadecimal.
func isHash(column string) bool { return column == "sha256" || column == "core" }

func portable(column string, v any) any {
	text := func(s string) any {
		if utf8.ValidString(s) {
			return s
		}
		return map[string]string{"base64": base64.StdEncoding.EncodeToString([]byte(s))}
	}
	switch v := v.(type) {
	case []byte:
		if isHash(column) {
			return hex.EncodeToString(v)
		}
		return text(string(v))
	case string:
		return text(v)
	default:
		return v
	}
}

// unportable is the inverse of portable.
func unportable(column string, v any) (any, error) {
	blob := column == "key" || column == "scope" || column == "ending"
	switch v := v.(type) {
	case json.Number:
		return v.Int64()
	case string:
		switch {
		case isHash(column):
			b, err := hex.DecodeString(v)
			if err == nil && len(b) != len(SHA256{}) {
				err = errors.New("not a SHA-256")
			}
			return b, err
		case blob:
			return []byte(v), nil
		}
		return v, nil
	case map[string]any:
		text, _ := v["base64"].(string)
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(v) != 1 {
			return nil, errors.New("not an object with base64 text")
		}
		if blob {
			return b, nil
		}
		return string(b), nil
	case nil:
		return nil, nil
	default:
		return nil, fmt.Errorf("a %T is not a column's value", v)
	}
}

// Import reads an export into an empty state: all or nothing. Errors: ErrNotEmpty; others name the line.
func (s *Store) Import(ctx context.Context, r io.Reader) error {
	err := s.update(ctx, func(t *tx) error {
		var rows int
		if err := t.one(`SELECT (SELECT count(*) FROM destinations) + (SELECT count(*) FROM syncs)`, nil, &rows); err != nil {
			return err
		}
		if rows > 0 {
			return fmt.Errorf("%w; import into a new file, named with --state", ErrNotEmpty)
		}
		if err := t.importLines(ctx, r); err != nil {
			return err
		}
		return t.resetIdentities()
	})
	if err != nil {
		return fmt.Errorf("import state: %w", err)
	}
	return nil
}

func (t *tx) importLines(ctx context.Context, r io.Reader) error {
	in := bufio.NewReader(r)
	inserts := map[string]string{}
	count := 0
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) == 0 && err != nil {
			return fmt.Errorf("line %d: the export is cut off: its last line, the row count, is missing", n)
		}
		var l line
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		dec.DisallowUnknownFields()
		if err := dec.Decode(&l); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		switch {
		case n == 1 && l.Format != exportFormat:
			return fmt.Errorf("line 1: not an export of a kbsync state in format %d", exportFormat)
		case n == 1:
			if err := t.nameInventory(l.Inventory); err != nil {
				return err
			}
		case l.End != nil && *l.End != count:
			return fmt.Errorf("line %d: the export counts %d rows, but has %d", n, *l.End, count)
		case l.End != nil:
			return t.endImported()
		default:
			if err := t.importRow(inserts, l); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
			count++
		}
	}
}

func (t *tx) importRow(inserts map[string]string, l line) error {
	for _, tb := range tables {
		if tb.name != l.Table {
			continue
		}
		insert, ok := inserts[tb.name]
		if !ok {
			marks := make([]string, len(tb.columns))
			for i := range marks {
				marks[i] = fmt.Sprintf("$%d", i+1)
			}
			insert = `INSERT INTO ` + tb.name + ` (` + strings.Join(tb.columns, ", ") + `) VALUES (` + strings.Join(marks, ", ") + `)`
			inserts[tb.name] = insert
		}
		if len(l.Row) != len(tb.columns) {
			return fmt.Errorf("a row of %s has %d columns, not %d", tb.name, len(tb.columns), len(l.Row))
		}
		args := make([]any, len(tb.columns))
		for i, c := range tb.columns {
			v, ok := l.Row[c]
			if !ok {
				return fmt.Errorf("column %s of %s is missing", c, tb.name)
			}
			var err error
			if args[i], err = unportable(c, v); err != nil {
				return fmt.Errorf("column %s of %s: %w", c, tb.name, err)
			}
		}
		_, err := t.exec(insert, args...)
		return err
	}
	return fmt.Errorf("there is no table %q", l.Table)
}

// endImported ends the scans and the batches that were under way when the export was made. The process that ran them may
// have sent a sealed batch, so that its documents are uncertain here.
func (t *tx) endImported() error {
	if _, err := t.exec(`UPDATE documents SET vanished = 0 WHERE vanished <> 0`); err != nil {
		return err
	}
	syncs, err := t.ids(`SELECT id FROM syncs`)
	if err != nil {
		return err
	}
	for _, id := range syncs {
		if _, err := t.recover(id, 0); err != nil {
			return err
		}
	}
	return nil
}
