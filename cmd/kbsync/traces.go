package main

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Traces are sent to an OpenTelemetry collector if one of these variables has its address. The other OTEL variables, such as
// OTEL_SERVICE_NAME and OTEL_EXPORTER_OTLP_HEADERS, apply as the specification says.
const (
	otelEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otelTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
)

// tracesPatience is how long the end of the program waits for a collector.
const tracesPatience = 5 * time.Second

// traces send the spans of the program. A nil *traces sends none.
type traces struct {
	provider trace.TracerProvider
	shutdown func(context.Context) error
	log      func(message string, args ...any)
}

// startTraces starts the traces once, if the environment has an address for them.
func (a *app) startTraces(ctx context.Context) (err error) {
	if a.traces == nil && (variable(a.env, otelEndpoint) != "" || variable(a.env, otelTracesEndpoint) != "") {
		a.traces, err = newTraces(ctx, a.out.Log.Warn)
	}
	return err
}

func (t *traces) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("github.com/kbsync/kbsync")
}

// end sends the last spans. A collector that does not answer changes no exit code.
func (t *traces) end() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracesPatience)
	defer cancel()
	if err := t.shutdown(ctx); err != nil {
		t.log("the last traces were not sent", "error", err)
	}
}
