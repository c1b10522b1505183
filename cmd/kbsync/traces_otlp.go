//go:build !nocloud

package main

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/kbsync/kbsync/internal/engine"
)

// newTraces makes the exporter, which reads its variables from the environment of the process and connects when it has spans.
func newTraces(ctx context.Context, log func(string, ...any)) (*traces, error) {
	// The SDK reports a collector that does not answer to one handler of the process.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log("traces were not sent", "error", err) }))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("start traces: %w; correct the OTEL variables", err))
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "kbsync"), attribute.String("service.version", buildVersion())),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, engine.WithClass(engine.ClassUsage, fmt.Errorf("start traces: %w; correct the OTEL variables", err))
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return &traces{provider, provider.Shutdown, log}, nil
}
