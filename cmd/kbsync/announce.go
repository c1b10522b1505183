package main

import (
	"context"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/tracker"
)

// An announcing client logs what becomes of each document, for -v.
type announcing struct {
	*replycx.Client
	out *output
}

var (
	_ ingest.API  = (*announcing)(nil)
	_ tracker.API = (*announcing)(nil)
)

// UploadSources is that of the client.
func (c *announcing) UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	result, err := c.Client.UploadSources(ctx, knowledgeBase, parts, opts)
	if c.out.verbose == 0 {
		return result, err
	}
	for _, p := range parts {
		if err != nil {
			c.out.log.Info("not uploaded", "document", p.Filename, "field", p.Field, "error", err)
			continue
		}
		for _, s := range result.Sources[p.Field] {
			c.out.log.Info("uploaded", "document", p.Filename, "source", s.ID, "status", string(s.Status))
		}
	}
	return result, err
}

// SourceStatus is that of the client.
func (c *announcing) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	list, err := c.Client.SourceStatus(ctx, ids)
	if c.out.verbose > 0 {
		for _, s := range list {
			if s.Status.Final() {
				c.out.log.Info("trained", "document", s.Name, "source", s.ID, "status", string(s.Status), "errors", s.Errors)
			}
		}
	}
	return list, err
}
