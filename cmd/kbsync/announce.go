package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/replycx"
	"github.com/kbsync/kbsync/tracker"
)

// An announcing client logs what becomes of each document, for -v, and says once what keeps it from uploading.
type announcing struct {
	*replycx.Client
	out *output

	mu      sync.Mutex
	trouble string // that was said last
}

var (
	_ ingest.API  = (*announcing)(nil)
	_ tracker.API = (*announcing)(nil)
)

// UploadSources is that of the client.
func (c *announcing) UploadSources(ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions) (*replycx.UploadResult, error) {
	result, err := c.Client.UploadSources(ctx, knowledgeBase, parts, opts)
	c.complain(ctx, err)
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

// complain warns of an API that cannot be reached or does not want to be asked now: the uploads are tried again for a
// while, and somebody who watches should know what they wait for.
func (c *announcing) complain(ctx context.Context, err error) {
	trouble := ""
	if err != nil {
		refused, isRefused := errors.AsType[*replycx.Error](err)
		lost := is[*net.OpError](err) || is[*tls.CertificateVerificationError](err)
		if ctx.Err() != nil || !lost && (!isRefused || refused.StatusCode != 429 && refused.StatusCode < 500) {
			return
		}
		trouble = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if trouble != "" && trouble != c.trouble {
		c.out.log.Warn("an upload did not go through", "error", trouble)
	}
	c.trouble = trouble
}
