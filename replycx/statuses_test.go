package replycx

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
)

// statusServer answers status requests for the ids of known. It refuses requests with an id of refused.
type statusServer struct {
	known    func(id int64) bool
	refused  map[int64]*Error
	requests [][]int64
}

func (s *statusServer) ask(_ context.Context, ids []int64) ([]SourceStatus, error) {
	s.requests = append(s.requests, slices.Clone(ids))
	for _, id := range ids {
		if err := s.refused[id]; err != nil {
			return nil, err
		}
	}
	var out []SourceStatus
	for _, id := range ids {
		if s.known(id) {
			out = append(out, SourceStatus{ID: id, Status: StatusCompleted})
		}
	}
	return out, nil
}

func idsFrom(first int64, n int) []int64 {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = first + int64(i)
	}
	return ids
}

func TestOneRefusedIDDoesNotHideTheOthers(t *testing.T) {
	for name, refusal := range map[string]*Error{
		"404 of the API": {StatusCode: 404, Code: "SOURCE_NOT_FOUND", FromAPI: true},
		"400":            {StatusCode: 400, Code: string(ErrBadRequest), FromAPI: true},
		"bare 400":       {StatusCode: 400},
		"422":            {StatusCode: 422},
	} {
		s := &statusServer{known: func(id int64) bool { return id != 1077 }, refused: map[int64]*Error{1042: refusal}}
		got, err := CollectStatuses(t.Context(), idsFrom(1000, 150), s.ask)
		if err != nil || len(got.Found) != 148 || len(got.Refused) != 1 || got.Refused[1042] != refusal || !slices.Equal(got.Missing, []int64{1077}) {
			t.Errorf("%s: %d found, refused %v, missing %v, %v", name, len(got.Found), got.Refused, got.Missing, err)
		}
		if len(s.requests) > 2+2*7 {
			t.Errorf("%s: %d requests", name, len(s.requests))
		}
	}
}

func TestStatusRequestsFitInURLs(t *testing.T) {
	for _, first := range []int64{1, 1_000_000_000_000_000_000} {
		s := &statusServer{known: func(int64) bool { return true }}
		got, err := CollectStatuses(t.Context(), idsFrom(first, 250), s.ask)
		if err != nil || len(got.Found) != 250 {
			t.Fatalf("%d found, %v", len(got.Found), err)
		}
		for _, ids := range s.requests {
			length := 0
			for _, id := range ids {
				length += len(strconv.FormatInt(id, 10)) + 1
			}
			if len(ids) > MaxStatusIDs || length > MaxStatusLength {
				t.Errorf("a request for %d ids of %d characters", len(ids), length)
			}
		}
		if len(s.requests) > 3 {
			t.Errorf("%d requests", len(s.requests))
		}
	}
}

func TestOtherErrorsEndTheCollection(t *testing.T) {
	for name, cause := range map[string]error{
		"connection":     errors.New("connection refused"),
		"401":            &Error{StatusCode: 401},
		"bare 404":       &Error{StatusCode: 404},
		"404 of account": &Error{StatusCode: 404, Code: string(ErrAccountNotFound), FromAPI: true},
		"429":            &Error{StatusCode: 429},
		"500":            &Error{StatusCode: 500, FromAPI: true},
	} {
		requests := 0
		got, err := CollectStatuses(t.Context(), idsFrom(1, 250), func(_ context.Context, ids []int64) ([]SourceStatus, error) {
			if requests++; requests == 2 {
				return nil, cause
			}
			return []SourceStatus{{ID: ids[0]}}, nil
		})
		if !errors.Is(err, cause) || requests != 2 || len(got.Found) != 1 || len(got.Missing) != MaxStatusIDs-1 || len(got.Refused) != 0 {
			t.Errorf("%s: %d requests, %d found, %d missing, refused %v, %v", name, requests, len(got.Found), len(got.Missing), got.Refused, err)
		}
	}
}

func TestAPIThatRefusesEveryRequestIsAskedForFewIDs(t *testing.T) {
	refusal := &Error{StatusCode: 400}
	s := &statusServer{refused: map[int64]*Error{}}
	ids := idsFrom(1, 500)
	for _, id := range ids {
		s.refused[id] = refusal
	}
	got, err := CollectStatuses(t.Context(), ids, s.ask)
	if !errors.Is(err, refusal) || len(got.Refused) != maxRefusedAlone || len(s.requests) > 40 {
		t.Fatalf("%d refused after %d requests, %v", len(got.Refused), len(s.requests), err)
	}
}

func TestEveryIDMayBeUnknown(t *testing.T) {
	refusal := &Error{StatusCode: 404, Code: "SOURCE_NOT_FOUND", FromAPI: true}
	s := &statusServer{refused: map[int64]*Error{}}
	ids := idsFrom(1, 30)
	for _, id := range ids {
		s.refused[id] = refusal
	}
	got, err := CollectStatuses(t.Context(), ids, s.ask)
	if err != nil || len(got.Refused) != 30 || got.Answered() {
		t.Fatalf("%d refused, %v", len(got.Refused), err)
	}
}
