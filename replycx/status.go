package replycx

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
)

// SourceStatus is the training status of one source.
type SourceStatus struct {
	// ID is the source's id, always positive.
	ID int64
	// Name is the source's name.
	Name string
	// Status is the training status.
	Status Status
	// KnowledgeBaseID is the source's knowledge base, 0 if the answer does not say.
	KnowledgeBaseID int64
	// Errors is the server's text about what went wrong. The documented answer has
	// none; it is read in case one comes.
	Errors string
	// Raw is this source as the answer has it.
	Raw json.RawMessage
}

// SourceStatus asks for the training status of sources:
// GET /api/v1/ai/status/sources?source_ids=1,2.
//
// The answer is in the server's order and may lack ids that were asked for. Keep
// the list modest, a hundred ids or so: it travels in the URL. The id 0 is
// allowed, as a probe of the token before there is any source.
//
// Documented errors: ErrTokenInvalid, ErrFeatureNotEnabled, ErrAccountNotFound.
func (c *Client) SourceStatus(ctx context.Context, ids []int64) ([]SourceStatus, error) {
	const op = "source status"
	path := []byte("/api/v1/ai/status/sources?source_ids=")
	for i, id := range ids {
		if i > 0 {
			path = append(path, ',')
		}
		path = strconv.AppendInt(path, id, 10)
	}
	var out struct {
		Sources []json.RawMessage `json:"sources"`
	}
	req, err := c.NewRequest(ctx, http.MethodGet, string(path), nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Call)
	defer cancel()
	a, err := c.send(op, req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	defer a.free()
	if err := a.decode(&out); err != nil {
		return nil, err
	}
	if out.Sources == nil {
		return nil, a.broken("has no list of sources", nil)
	}
	statuses := make([]SourceStatus, 0, len(out.Sources))
	var firstErr error
	for _, raw := range out.Sources {
		s, err := readStatus(raw)
		if err != nil {
			firstErr = err
			continue
		}
		statuses = append(statuses, s)
	}
	// One entry that makes no sense must not hide the others.
	if firstErr != nil && len(statuses) == 0 {
		return nil, a.broken("names no source", firstErr)
	}
	return statuses, nil
}

func readStatus(raw json.RawMessage) (SourceStatus, error) {
	var one struct {
		ID              json.RawMessage `json:"id"`
		Name            looseText       `json:"name"`
		Status          looseText       `json:"status"`
		KnowledgeBaseID json.RawMessage `json:"knowledge_base_id"`
		Errors          json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(raw, &one); err != nil {
		return SourceStatus{}, err
	}
	id, err := sourceID(one.ID)
	if err != nil {
		return SourceStatus{}, err
	}
	knowledgeBase, _ := strconv.ParseInt(string(one.KnowledgeBaseID), 10, 64)
	return SourceStatus{
		ID:              id,
		Name:            string(one.Name),
		Status:          Status(one.Status),
		KnowledgeBaseID: knowledgeBase,
		Errors:          errorText(one.Errors),
		Raw:             raw,
	}, nil
}

// MaxStatusIDs and MaxStatusLength bound one status request: the ids travel in the URL, comma-separated. The API
// documents no bound; these keep the URL below what proxies accept.
const (
	MaxStatusIDs    = 100
	MaxStatusLength = 2000 // characters of ids and commas
)
