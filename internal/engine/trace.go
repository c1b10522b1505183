package engine

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/kbsync/kbsync/ingest"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/watcher"
)

// tracerOrNone returns a tracer that does nothing in place of nil.
func tracerOrNone(t trace.Tracer) trace.Tracer {
	if t == nil {
		return noop.Tracer{}
	}
	return t
}

// startSpan starts a span of a trace. The context that it returns makes the requests of the work children of the span.
func startSpan(ctx context.Context, t trace.Tracer, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return tracerOrNone(t).Start(ctx, name, trace.WithAttributes(attributes...))
}

// endSpan ends a span. Of an error it records the class alone: a text may name documents, and the traces go to another program.
func endSpan(span trace.Span, err error, attributes ...attribute.KeyValue) {
	span.SetAttributes(attributes...)
	if err != nil {
		span.SetStatus(codes.Error, Classify(err).String())
	}
	span.End()
}

func syncAttribute(s config.Sync) attribute.KeyValue { return attribute.String("kbsync.sync", s.Name) }

func scanAttributes(r watcher.Result) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int("kbsync.listed", r.Listed), attribute.Int("kbsync.new", r.New), attribute.Int("kbsync.changed", r.Changed),
		attribute.Int("kbsync.removed", r.Removed),
	}
}

func uploadAttributes(r ingest.Result) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.Int("kbsync.uploaded", r.Uploaded), attribute.Int("kbsync.shared", r.Shared), attribute.Int("kbsync.failed", r.Failed),
		attribute.Int64("kbsync.bytes", r.Bytes), attribute.Int("kbsync.requests", r.Requests),
	}
}
