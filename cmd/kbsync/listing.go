package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/kbsync/kbsync/internal/console"
	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

// readListing reads a listing of sources: CSV with a header, JSON, or only ids, a line each. The lists of kbsync sources are such
// listings.
func readListing(path string, stdin io.Reader) (*engine.Listing, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("read --listing: %w", err))
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	sources, err := parseListing(in)
	if err != nil {
		return nil, usageError(fmt.Sprintf("--listing %s: %v", console.Printable(path), err))
	}
	return engine.NewListing(sources), nil
}

func parseListing(in io.Reader) ([]engine.ListedSource, error) {
	r := bufio.NewReader(in)
	if start, _ := r.Peek(3); bytes.Equal(start, []byte("\xef\xbb\xbf")) {
		_, _ = r.Discard(3)
	}
	start, _ := r.Peek(512)
	if text := bytes.TrimLeft(start, " \t\r\n"); len(text) > 0 && (text[0] == '[' || text[0] == '{') {
		return parseJSONListing(r)
	}
	return parseCSVListing(r)
}

// A listingRow is a row of a listing.
type listingRow struct {
	ID       json.RawMessage `json:"id"`
	Key      string          `json:"key"`
	Name     string          `json:"name"`
	SHA256   string          `json:"sha256"`
	Standing string          `json:"standing"`
}

// source returns the source of a row; ok is false for a source that is gone.
func (r listingRow) source(id string) (src engine.ListedSource, ok bool, err error) {
	if r.Standing == string(state.Gone) {
		return src, false, nil
	}
	src = engine.ListedSource{Key: r.Key, Name: r.Name}
	if src.ID, err = parseSourceID(strings.TrimSpace(id)); err != nil {
		return src, false, fmt.Errorf("%s is not the id of a source", console.Quoted(id))
	}
	if r.SHA256 != "" {
		sum, err := hex.DecodeString(r.SHA256)
		if err != nil || len(sum) != len(src.SHA256) {
			return src, false, fmt.Errorf("%s is not a SHA-256", console.Quoted(r.SHA256))
		}
		copy(src.SHA256[:], sum)
	}
	return src, true, nil
}

// parseJSONListing reads a JSON array of objects, or objects one after the other.
func parseJSONListing(in *bufio.Reader) (sources []engine.ListedSource, err error) {
	dec := json.NewDecoder(in)
	for n := 1; ; {
		var value json.RawMessage
		if err := dec.Decode(&value); errors.Is(err, io.EOF) {
			return sources, nil
		} else if err != nil {
			return nil, err
		}
		rows := make([]listingRow, 1)
		if value[0] == '[' {
			err = json.Unmarshal(value, &rows)
		} else {
			err = json.Unmarshal(value, &rows[0])
		}
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if sources, err = appendSource(sources, row, strings.Trim(string(row.ID), `"`)); err != nil {
				return nil, fmt.Errorf("object %d: %w", n, err)
			}
			n++
		}
	}
}

func appendSource(sources []engine.ListedSource, row listingRow, id string) ([]engine.ListedSource, error) {
	src, ok, err := row.source(id)
	if ok {
		sources = append(sources, src)
	}
	return sources, err
}

// parseCSVListing reads CSV with commas, semicolons or tabs. A file without a header has only ids.
func parseCSVListing(in *bufio.Reader) (sources []engine.ListedSource, err error) {
	start, _ := in.Peek(4096)
	header, _, _ := bytes.Cut(start, []byte("\n"))
	r := csv.NewReader(in)
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	for _, separator := range ";\t" {
		if bytes.Count(header, []byte(string(separator))) > bytes.Count(header, []byte(string(r.Comma))) {
			r.Comma = separator
		}
	}
	var columns []string
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return sources, nil
		}
		if err != nil {
			return nil, err
		}
		if columns == nil {
			if columns = listingColumns(record); slices.Contains(columns, "id") {
				continue
			}
			if len(record) > 1 {
				return nil, errors.New("its first line must name the columns: id, and key or name")
			}
			columns = []string{"id"}
		}
		row, id := listingRow{}, ""
		for i, cell := range record[:min(len(record), len(columns))] {
			cell = console.Cell(cell)
			switch columns[i] {
			case "id":
				id = cell
			case "key":
				row.Key = cell
			case "name":
				row.Name = cell
			case "sha256":
				row.SHA256 = cell
			case "standing":
				row.Standing = cell
			}
		}
		line, _ := r.FieldPos(0)
		if sources, err = appendSource(sources, row, id); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
}

func listingColumns(record []string) []string {
	columns := make([]string, len(record))
	for i, name := range record {
		columns[i] = strings.ToLower(strings.TrimSpace(name))
	}
	return columns
}
