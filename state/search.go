package state

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A DocumentQuery selects documents of a sync for a page.
type DocumentQuery struct {
	SyncID   int64
	State    DocumentState // any if empty
	Prefix   string        // of the key
	Contains string        // a part of the key, in any letter case
	From     string        // the least key of the page; empty for the first page
	Limit    int           // of documents
}

// A DocumentPage is a part of the documents that a query selects, in byte order of the key.
type DocumentPage struct {
	Documents []Document
	// Next is the From of the next page; empty if the page is the last one. A page may be empty and not the last one: the search
	// ends after 100,000 keys, so that no page takes long.
	Next string
}

const (
	searchedKeys  = 100_000 // at most for a page
	searchedRows  = 5_000   // documents at most, to find those in a state
	searchChunk   = 1_000
	fewUnfinished = 20_000 // documents in a state that are sorted for a page
)

// A candidate is a document that may be on a page.
type candidate struct {
	id  int64
	key string
}

// Search returns a page of documents. It reads no more than a part of a large sync.
func (s *Documents) Search(ctx context.Context, q DocumentQuery) (DocumentPage, error) {
	page, err := s.search(ctx, q)
	if err != nil {
		return DocumentPage{}, fmt.Errorf("search documents: %w", err)
	}
	return page, nil
}

func (s *Documents) search(ctx context.Context, q DocumentQuery) (page DocumentPage, err error) {
	read, err := s.candidates(ctx, q)
	if err != nil {
		return page, err
	}
	part := strings.ToLower(q.Contains)
	cursor := max(q.From, q.Prefix)
	for keys, rows := 0, 0; ; {
		size := searchChunk
		if part == "" && q.State == "" {
			size = q.Limit + 1
		}
		chunk, err := read(ctx, cursor, size)
		if err != nil {
			return page, err
		}
		keys += len(chunk)
		last := len(chunk) < size
		matches, beyond := q.matching(chunk, part)
		last = last || beyond
		if len(chunk) > 0 {
			cursor = string(keyAfter(chunk[len(chunk)-1].key))
		}
		for some := range slices.Chunk(matches, max(q.Limit, 1)+1) {
			rows += len(some)
			found, err := s.withIDs(ctx, q.SyncID, some)
			if err != nil {
				return page, err
			}
			for _, d := range found {
				if q.State != "" && d.State != q.State {
					continue
				}
				if len(page.Documents) == q.Limit {
					page.Next = d.Key
					return page, nil
				}
				page.Documents = append(page.Documents, d)
			}
			if rows >= searchedRows && (len(some) < len(matches) || !last) {
				page.Next = string(keyAfter(some[len(some)-1].key))
				return page, nil
			}
		}
		if last {
			return page, nil
		}
		if keys >= searchedKeys {
			page.Next = cursor
			return page, nil
		}
	}
}

// matching returns the candidates of a chunk whose keys the query selects, and whether the chunk goes beyond the keys with its prefix.
// part is a part of the key in lower case.
func (q *DocumentQuery) matching(chunk []candidate, part string) (matches []candidate, beyond bool) {
	for _, c := range chunk {
		if !strings.HasPrefix(c.key, q.Prefix) {
			return matches, true
		}
		if part == "" || strings.Contains(strings.ToLower(c.key), part) {
			matches = append(matches, c)
		}
	}
	return matches, false
}

// A candidateReader returns up to limit candidates from a key on, in byte order.
type candidateReader func(ctx context.Context, from string, limit int) ([]candidate, error)

// candidates returns the reader that reads the fewest documents for a query.
func (s *Documents) candidates(ctx context.Context, q DocumentQuery) (candidateReader, error) {
	query, args := searchAll, []any{q.SyncID}
	switch codes, unfinished := unfinishedCodes(q.State); {
	case q.State == Skipped:
		query = searchSkipped
	case unfinished:
		few, err := s.areFew(ctx, q.SyncID, codes)
		if err != nil {
			return nil, err
		}
		if few {
			query, args = searchUnfinished, []any{q.SyncID, codes[0], codes[1]}
		}
	}
	text := fmt.Sprintf(query, len(args)+1, len(args)+2)
	return func(ctx context.Context, from string, limit int) (found []candidate, err error) {
		err = s.query(ctx, text, append(slices.Clone(args), []byte(from), limit), func(scan func(...any) error) error {
			var c candidate
			var key []byte
			err := scan(&c.id, &key)
			c.key = string(key)
			found = append(found, c)
			return err
		})
		return found, err
	}, nil
}

// The candidates of the sync $1. The last two parameters are the least key and the number of rows.
const (
	searchAll = `SELECT id, key
		FROM documents
		WHERE sync_id = $1
		  AND key >= $%d
		ORDER BY key
		LIMIT $%d`
	searchSkipped = `SELECT id, key
		FROM documents
		WHERE sync_id = $1
		  AND state = {doc.skipped}
		  AND key >= $%d
		ORDER BY key
		LIMIT $%d`
	searchUnfinished = `SELECT id, key
		FROM (` + inUnfinishedState + `) AS u
		WHERE key >= $%d
		ORDER BY key
		LIMIT $%d`
)

// inUnfinishedState are the documents of the sync $1 with the state $2, or linked to a content with the state $3.
const inUnfinishedState = `SELECT d.id, d.key
			FROM documents d
			WHERE d.sync_id = $1
			  AND d.state < {doc.linked}
			  AND d.state = $2
			UNION ALL
			SELECT d.id, d.key
			` + linkedUnfinished + `
			  AND c.state = $3`

// unfinishedCodes returns the numbers that the tables hold for documents in a state, and for contents. It returns false for the states
// of documents with which kbsync has finished.
func unfinishedCodes(state DocumentState) (codes [2]int, ok bool) {
	const none = -1
	codes, ok = map[DocumentState][2]int{
		Pending:   {docPending, contentOpen},
		Uploading: {docClaimed, contentReserved},
		Uncertain: {none, contentUncertain},
		Training:  {none, contentTraining},
		Stuck:     {none, contentStuck},
		Failed:    {docRefused, contentFailed},
	}[state]
	return codes, ok
}

// areFew reports whether the documents in a state are few enough to sort them for a page.
func (s *Documents) areFew(ctx context.Context, syncID int64, codes [2]int) (bool, error) {
	var n int
	err := s.queryOne(ctx, `SELECT count(*)
		FROM (SELECT 1 FROM (`+inUnfinishedState+`) AS u LIMIT $4) AS few`,
		[]any{syncID, codes[0], codes[1], fewUnfinished + 1}, &n)
	return n <= fewUnfinished, err
}

// withIDs returns documents of the sync in the order of the candidates.
func (s *Documents) withIDs(ctx context.Context, syncID int64, of []candidate) (found []Document, err error) {
	args := []any{syncID, []byte{}}
	for _, c := range of {
		args = append(args, c.id)
	}
	err = s.query(ctx, `SELECT `+documentColumns+`
		WHERE {no.index}d.sync_id = $1
		  AND d.id IN `+valueRows(3, 1, len(of)), args, func(scan func(...any) error) error {
		d, err := scanDocument(scan)
		found = append(found, d)
		return err
	})
	slices.SortFunc(found, func(a, b Document) int { return strings.Compare(a.Key, b.Key) })
	return found, err
}
