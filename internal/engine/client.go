package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/kbsync/kbsync/replycx"
)

// A LoggingClient is a client that logs and traces uploads: a failure of the API once, and each document on demand.
type LoggingClient struct {
	*replycx.Client
	logger    *slog.Logger
	tracer    trace.Tracer
	documents bool

	mu      sync.Mutex
	failure string // logged last
}

var _ Client = (*LoggingClient)(nil)

// NewLoggingClient returns a client that logs to logger, each document as well if documents is set. The tracer, which may be nil, records
// each request as a span.
func NewLoggingClient(client *replycx.Client, logger *slog.Logger, tracer trace.Tracer, documents bool) *LoggingClient {
	return &LoggingClient{Client: client, logger: logger, tracer: tracer, documents: documents}
}

// UploadSources uploads as the client does.
func (c *LoggingClient) UploadSources(
	ctx context.Context, knowledgeBase int64, parts []replycx.Part, opts *replycx.UploadOptions,
) (*replycx.UploadResult, error) {
	size := int64(0)
	for _, p := range parts {
		size += p.Size
	}
	ctx, span := startSpan(ctx, c.tracer, "upload request", attribute.Int64("kbsync.knowledge_base", knowledgeBase),
		attribute.Int("kbsync.documents", len(parts)), attribute.Int64("kbsync.bytes", size))
	result, err := c.Client.UploadSources(ctx, knowledgeBase, parts, opts)
	endSpan(span, err)
	c.logFailure(ctx, err)
	if !c.documents {
		return result, err
	}
	for _, p := range parts {
		if err != nil {
			c.logger.Info("not uploaded", "document", p.Filename, "field", p.Field, "error", err)
			continue
		}
		for _, s := range result.Sources[p.Field] {
			c.logger.Info("uploaded", "document", p.Filename, "source", s.ID, "status", string(s.Status))
		}
	}
	return result, err
}

// SourceStatus requests the status of sources as the client does.
func (c *LoggingClient) SourceStatus(ctx context.Context, ids []int64) ([]replycx.SourceStatus, error) {
	ctx, span := startSpan(ctx, c.tracer, "status request", attribute.Int("kbsync.sources", len(ids)))
	list, err := c.Client.SourceStatus(ctx, ids)
	endSpan(span, err)
	if c.documents {
		for _, s := range list {
			if s.Status.Final() {
				c.logger.Info("trained", "document", s.Name, "source", s.ID, "status", string(s.Status), "errors", s.Errors)
			}
		}
	}
	return list, err
}

// logFailure warns of an API that cannot be reached or is busy. The uploads are retried for a while, and a person who watches
// should know why they wait. The same failure is logged once until an upload succeeds.
func (c *LoggingClient) logFailure(ctx context.Context, err error) {
	failure := ""
	if err != nil {
		if ctx.Err() != nil || !passing(err) {
			return
		}
		failure = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if failure != "" && failure != c.failure {
		c.logger.Warn("an upload failed, retrying", "error", failure)
	}
	c.failure = failure
}

// passing reports whether the same upload may succeed later.
func passing(err error) bool {
	if is[*net.OpError](err) || is[*tls.CertificateVerificationError](err) {
		return true
	}
	e, ok := errors.AsType[*replycx.Error](err)
	return ok && (e.Class() == replycx.ClassBusy || e.Class() == replycx.ClassUnclear)
}
