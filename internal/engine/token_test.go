package engine

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/state"
)

// A refusingClient refuses the token of uploads and of status requests, so many times.
type refusingClient struct {
	Client
	uploads, statuses atomic.Int32
	refused           atomic.Int32
}

func (c *refusingClient) refuse(left *atomic.Int32) error {
	if left.Add(-1) < 0 {
		return nil
	}
	c.refused.Add(1)
	return &replycx.Error{StatusCode: http.StatusUnauthorized, Code: "JWT_SIGNATURE_EXCEPTION"}
}

func (c *refusingClient) UploadSources(ctx context.Context, kb int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	if err := c.refuse(&c.uploads); err != nil {
		return nil, err
	}
	return c.Client.UploadSources(ctx, kb, parts, opts)
}

func (c *refusingClient) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	if err := c.refuse(&c.statuses); err != nil {
		return nil, err
	}
	return c.Client.SourceStatus(ctx, ids)
}

func TestWorkGoesOnWithANewToken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		uploads, statuses int32
		isNew             bool
		want              state.DocumentState // of both documents
		most              int32               // refused requests
	}{
		"one refused upload":              {1, 0, true, state.Completed, 1},
		"one refused status request":      {0, 1, true, state.Completed, 1},
		"one of each":                     {1, 1, true, state.Completed, 2},
		"the same token":                  {1, 0, false, state.Pending, 1},
		"a new token each time, in vain":  {1000, 0, true, state.Pending, 10},
		"the same token, status requests": {0, 1000, false, state.Training, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.opts.Config.Poll.Min = 1
			client := &refusingClient{Client: f.opts.API.Client}
			client.uploads.Store(test.uploads)
			client.statuses.Store(test.statuses)
			f.opts.API.Client = client
			f.opts.API.HasNewToken = func(context.Context) bool { return test.isNew }
			result := RunOnce(t.Context(), RunOptions{Options: f.opts, Wait: true})
			f.wantCounts(result.Passes[0].Sync, map[state.DocumentState]int{test.want: 2})
			if n := client.refused.Load(); n == 0 || n > test.most {
				t.Errorf("%d requests were refused, want at most %d", n, test.most)
			}
			if done := test.want == state.Completed; done != (result.Passes[0].Err == nil && result.Passes[0].TrainingErr == nil) {
				t.Errorf("errors %v, %v", result.Passes[0].Err, result.Passes[0].TrainingErr)
			}
		})
	}
}

func TestWatchGoesOnWithANewTokenAtOnce(t *testing.T) {
	t.Parallel()
	var client *refusingClient
	r := startDaemon(t, "{poll: {min: 20ms}, syncs: ["+oneSync+"]}", func(f *fixture) {
		client = &refusingClient{Client: f.opts.API.Client}
		client.uploads.Store(1)
		client.statuses.Store(1)
		f.opts.API.Client = client
		f.opts.API.HasNewToken = func(context.Context) bool { return true }
	})
	r.answerAll()
	until(t, func() bool { // long before the five minutes after a refusal
		s, err := r.opts.Store.Syncs.Get(t.Context(), "docs")
		if err != nil {
			return false
		}
		counts, err := r.opts.Store.Documents.Counts(t.Context(), s.ID)
		return err == nil && counts[state.Completed] == 2
	})
	if n := client.refused.Load(); n != 2 {
		t.Errorf("%d requests were refused, want 2", n)
	}
}
