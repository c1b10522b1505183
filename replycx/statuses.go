package replycx

import (
	"context"
	"errors"
	"strconv"
)

// StatusFunc asks for the training status of sources in one request, as [Client.SourceStatus] does.
type StatusFunc func(ctx context.Context, ids []int64) ([]SourceStatus, error)

// SourceStatuses are the answers about many sources. Each id that was asked for is in one of the three.
type SourceStatuses struct {
	// Found are the sources that an answer named, by id.
	Found map[int64]SourceStatus
	// Missing are the ids that an answer lacked although the API accepted the request.
	Missing []int64
	// Refused are the ids that the API refused in a request for that id alone, with the error: a 404 of the API itself, a
	// 400, 413, 414, 422 or 431.
	Refused map[int64]*Error
}

// Answered reports whether the API accepted at least one request.
func (s *SourceStatuses) Answered() bool { return len(s.Found)+len(s.Missing) > 0 }

// maxRefusedAlone is how many ids may be refused alone while no request was accepted. More of them look like a fault of every
// request. A 404 of the API does not count.
const maxRefusedAlone = 10

// CollectStatuses asks for any number of sources, in requests of at most MaxStatusIDs ids and MaxStatusLength characters.
//
// The API does not document its answer to a request with an id that it does not know. If the API refuses a request with a 404
// of its own, or as CollectStatuses expects of a request with a wrong or too long list of ids (ClassRejected, ClassTooLong),
// CollectStatuses halves the ids until the id at fault is alone. So one id does not hide the others.
//
// Any other error ends the call, and so does an API that refuses every id. Then the result has the answers so far, and the
// ids that are in none of its parts were not answered. ask is usually the method
// SourceStatus of a [Client]; CollectStatuses calls it from one goroutine.
func CollectStatuses(ctx context.Context, ids []int64, ask StatusFunc) (*SourceStatuses, error) {
	c := statusCollector{
		ask: ask,
		out: &SourceStatuses{Found: make(map[int64]SourceStatus, len(ids)), Refused: map[int64]*Error{}},
	}
	for len(ids) > 0 {
		n := statusChunk(ids)
		if err := c.collect(ctx, ids[:n]); err != nil {
			return c.out, err
		}
		ids = ids[n:]
	}
	return c.out, nil
}

// statusChunk returns how many ids, from the first, fit in one request.
func statusChunk(ids []int64) int {
	length := 0
	for i, id := range ids {
		length += len(strconv.FormatInt(id, 10)) + len(",")
		if i == MaxStatusIDs || i > 0 && length > MaxStatusLength {
			return i
		}
	}
	return len(ids)
}

type statusCollector struct {
	ask          StatusFunc
	out          *SourceStatuses
	refusedAlone int // without a 404 of the API
}

// collect makes one request, and if the API refuses the ids, one for each half.
func (c *statusCollector) collect(ctx context.Context, ids []int64) error {
	statuses, err := c.ask(ctx, ids)
	if err == nil {
		c.add(ids, statuses)
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !refusesIDs(e) {
		return err
	}
	if len(ids) > 1 {
		middle := len(ids) / 2
		if err := c.collect(ctx, ids[:middle]); err != nil {
			return err
		}
		return c.collect(ctx, ids[middle:])
	}
	c.out.Refused[ids[0]] = e
	if e.Class() != ClassNotFound {
		c.refusedAlone++
	}
	if c.refusedAlone >= maxRefusedAlone && !c.out.Answered() {
		return err
	}
	return nil
}

// add adds the answer to a request for ids.
func (c *statusCollector) add(ids []int64, statuses []SourceStatus) {
	for _, s := range statuses {
		c.out.Found[s.ID] = s
	}
	for _, id := range ids {
		if _, ok := c.out.Found[id]; !ok {
			c.out.Missing = append(c.out.Missing, id)
		}
	}
}

// refusesIDs reports whether the API refuses a status request for its ids. A 404 of a gateway proves nothing about them.
func refusesIDs(e *Error) bool {
	switch e.Class() {
	case ClassRejected, ClassTooLong:
		return true
	case ClassNotFound:
		return e.FromAPI
	}
	return false
}
