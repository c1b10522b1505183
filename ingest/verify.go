package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbsync/kbsync/internal/retry"
	"github.com/kbsync/kbsync/replycx"
)

// unverified is a document whose content was left behind. It may share the content only if the sources still exist.
type unverified struct {
	*document
	sources []int64
}

// A sourceState is the API's answer about one left-behind source.
type sourceState uint8

const (
	sourceUnknown sourceState = iota // no usable answer
	sourceExists
	sourceGone
)

// verify asks whether the left-behind sources of contents still exist, marks the others as gone, and returns the documents
// to resolve again. It gives documents back if the API gave no usable answer about their sources.
func (p *planner) verify(ctx context.Context, left []unverified) (again []*document, err error) {
	var ids []int64
	for _, u := range left {
		ids = append(ids, u.sources...)
	}
	check, err := p.checkSources(ctx, ids)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.release(ctx, documentsOf(left), time.Time{}))
	}
	var unanswered []*document
	var gone []int64
	for _, u := range left {
		u.verified = true
		usable := true
		for _, id := range u.sources {
			switch check.states[id] {
			case sourceUnknown:
				usable = false
			case sourceGone:
				u.verified = false
				gone = append(gone, id)
			}
		}
		if usable {
			again = append(again, u.document)
		} else {
			unanswered = append(unanswered, u.document)
		}
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		if _, err := p.inventory.MarkSourcesGone(ctx, p.sync.Destination.ID, slices.Compact(gone)); err != nil {
			return nil, err
		}
	}
	return again, p.retryLater(ctx, unanswered, check.why)
}

func documentsOf(left []unverified) []*document {
	docs := make([]*document, len(left))
	for i, u := range left {
		docs[i] = u.document
	}
	return docs
}

// A sourceCheck collects the API's answers about left-behind sources.
type sourceCheck struct {
	knowledgeBase int64 // of the sources

	states   map[int64]sourceState
	answered bool    // the API accepted a status request
	refused  []int64 // ids that the API refused with a 404, the last time alone
	why      string  // why a source is unknown
}

// recheckAfter lies between two requests for a source that the API did not name: a copy of its database may lag behind.
const recheckAfter = 2 * time.Second

// checkSources asks for the state of each source. A content whose source is gone is uploaded again, which cannot be undone.
// So a source counts as gone only after three requests that lie recheckAfter apart, the last one for it alone, and a 404 counts only if
// the API accepts another status request. Errors: *FatalError, or a failure of the state.
func (p *planner) checkSources(ctx context.Context, ids []int64) (*sourceCheck, error) {
	slices.Sort(ids)
	missing := slices.Compact(ids)
	c := &sourceCheck{knowledgeBase: p.sync.Destination.KnowledgeBase, states: make(map[int64]sourceState, len(missing))}
	for range 2 {
		answer, err := replycx.CollectStatuses(ctx, missing, p.askStatus)
		c.answered = c.answered || answer.Answered()
		if missing = c.addAll(missing, answer); err != nil {
			return c, c.fail(err)
		}
		if len(missing) == 0 {
			return c, nil
		}
		if err := retry.Sleep(ctx, recheckAfter); err != nil {
			return c, err
		}
	}
	for _, id := range missing {
		alone, err := replycx.CollectStatuses(ctx, []int64{id}, p.askStatus)
		if err != nil {
			return c, c.fail(err)
		}
		c.add(id, alone)
	}
	if len(c.refused) > 0 && !c.answered {
		var err error
		if c.answered, err = p.apiAnswers(ctx); err != nil {
			return c, err
		}
	}
	if c.answered {
		for _, id := range c.refused {
			c.states[id] = sourceGone
		}
	}
	return c, nil
}

// addAll adds the answer to a request for several sources. It returns the ids that may be gone.
func (c *sourceCheck) addAll(ids []int64, answer *replycx.SourceStatuses) (missing []int64) {
	for _, id := range ids {
		s, found := answer.Found[id]
		e := answer.Refused[id]
		switch {
		case found && !c.isElsewhere(s):
			c.states[id] = sourceExists
		case e != nil && e.Class() != replycx.ClassNotFound:
			c.why = e.Error()
		default:
			missing = append(missing, id)
		}
	}
	return missing
}

// add adds the answer to the last request, for one source alone.
func (c *sourceCheck) add(id int64, answer *replycx.SourceStatuses) {
	c.answered = c.answered || answer.Answered()
	if s, found := answer.Found[id]; found {
		if c.isElsewhere(s) {
			c.why = fmt.Sprintf("the status of source %d is of knowledge base %d", id, s.KnowledgeBaseID)
		} else {
			c.states[id] = sourceExists
		}
		return
	}
	e := answer.Refused[id]
	if e == nil {
		c.states[id] = sourceGone
		return
	}
	c.why = e.Error()
	if e.Class() == replycx.ClassNotFound {
		c.refused = append(c.refused, id)
	}
}

// isElsewhere reports whether a status is of another knowledge base. It proves nothing about the source.
func (c *sourceCheck) isElsewhere(s replycx.SourceStatus) bool {
	return s.KnowledgeBaseID != 0 && s.KnowledgeBaseID != c.knowledgeBase
}

// fail records why a request has no usable answer. It returns a *FatalError if no other request can have one.
func (c *sourceCheck) fail(cause error) error {
	if e, ok := errors.AsType[*replycx.Error](cause); ok && e.Class() == replycx.ClassDenied {
		return &FatalError{Err: cause}
	}
	c.why = cause.Error()
	return nil
}

// apiAnswers reports whether the API accepts a status request for the newest source of the destination, or for the id 0.
func (p *planner) apiAnswers(ctx context.Context) (bool, error) {
	newest, err := p.inventory.AnySource(ctx, p.sync.Destination.ID)
	if err != nil {
		return false, err
	}
	for _, id := range []int64{newest, 0} {
		if _, err := p.askStatus(ctx, []int64{id}); err == nil {
			return true, nil
		}
	}
	return false, nil
}

func (p *planner) askStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	p.report.update(func(res *Result) { res.Asked++ })
	return p.api.SourceStatus(ctx, ids)
}
