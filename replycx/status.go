package replycx

import (
	"context"
	"encoding/json"
	"fmt"
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
	// KnowledgeBaseID is the source's knowledge base, 0 if the answer does not name it.
	KnowledgeBaseID int64
	// Errors is the server's text about a failed training. The documented answer has
	// no such text.
	Errors string
	// Raw is this source's JSON in the answer.
	Raw json.RawMessage
}

// SourceStatus returns the training status of sources:
// GET /api/v1/ai/status/sources?source_ids=1,2. Section "Get training status of a data
// source".
//
// The result is in the server's order and may lack some of the ids: the document does
// not say how the API answers for an unknown id. The ids travel in the URL: pass at most
// MaxStatusIDs, or use [CollectStatuses]. The id 0 is allowed; it tests the token before
// any source exists. Repeating the request is harmless.
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
		return nil, fmt.Errorf("%s: %w", op, err)
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
		return nil, a.invalid("has no list of sources", nil)
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
	// One malformed entry must not hide the others.
	if firstErr != nil && len(statuses) == 0 {
		return nil, a.invalid("names no source", firstErr)
	}
	return statuses, nil
}

func readStatus(raw json.RawMessage) (SourceStatus, error) {
	var one struct {
		ID              json.RawMessage `json:"id"`
		Name            looseText       `json:"name"`
		Status          looseText       `json:"status"`
		KnowledgeBaseID looseInt        `json:"knowledge_base_id"`
		Errors          json.RawMessage `json:"errors"`
	}
	if err := json.Unmarshal(raw, &one); err != nil {
		return SourceStatus{}, err
	}
	id, err := sourceID(one.ID)
	if err != nil {
		return SourceStatus{}, err
	}
	return SourceStatus{
		ID:              id,
		Name:            string(one.Name),
		Status:          Status(one.Status),
		KnowledgeBaseID: int64(one.KnowledgeBaseID),
		Errors:          errorText(one.Errors),
		Raw:             raw,
	}, nil
}

// MaxStatusIDs and MaxStatusLength bound one status request, because its ids travel in the URL, comma-separated. The API
// documents no bound; these keep the URL below what proxies accept.
const (
	MaxStatusIDs    = 100
	MaxStatusLength = 2000 // characters of ids and commas
)
