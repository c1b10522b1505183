package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
)

// Reset returns the emulator to its start: the fixture's data without sources, and no
// webhooks, deliveries or counts. The clock is where the options had it, and the fault
// script of the options begins again. The file, if there is one, records the reset.
// Tokens stay valid. A delivery in progress may still reach its receiver.
func (e *Emulator) Reset() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	line := journalLine{Reset: true}
	if err := e.write(line); err != nil {
		return err
	}
	e.apply(line)
	e.counts.reset()
	e.deliveries.forget()
	return e.SetFaults(e.firstFaults)
}

// Snapshot writes the emulator's data as one line of JSON: the sources without their
// content, the conversations, the webhooks with their tokens, and the clock's advance.
// It leaves out the counts, the fault script and the deliveries. The line is also a
// valid File for an emulator. Its form may change with the version of the package.
func (e *Emulator) Snapshot(w io.Writer) error {
	e.mu.Lock()
	line, err := e.snapshot()
	e.mu.Unlock()
	if err == nil {
		err = json.NewEncoder(w).Encode(line)
	}
	if err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

// snapshot returns the data as a line. The caller holds e.mu.
func (e *Emulator) snapshot() (journalLine, error) {
	if err := e.catchUp(); err != nil {
		return journalLine{}, err
	}
	line := journalLine{Reset: true, Sources: slices.Clone(e.sources), Clock: e.clock.advanced.Load()}
	for i := range e.sources {
		if e.sources[i].removed {
			line.Removed = append(line.Removed, firstID+int64(i))
		}
	}
	for _, id := range e.conversationOrder {
		line.Conversations = append(line.Conversations, *e.conversations[id])
	}
	e.deliveries.mu.Lock()
	defer e.deliveries.mu.Unlock()
	for _, account := range slices.Sorted(maps.Keys(e.deliveries.hooks)) {
		line.Webhooks = append(line.Webhooks, e.deliveries.hooks[account])
	}
	return line, nil
}

// Restore replaces the emulator's data with a snapshot. Counts, the fault script and
// the deliveries stay. Conversations of the fixture that the snapshot lacks begin
// again. With an error, nothing has changed.
func (e *Emulator) Restore(r io.Reader) error {
	line, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.write(line); err != nil {
		return err
	}
	e.apply(line)
	return nil
}

func readSnapshot(r io.Reader) (line journalLine, err error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return line, err
	}
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	if err := in.Decode(&line); err != nil {
		return line, err
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return line, errors.New("more follows after the snapshot's JSON")
	}
	if !line.Reset {
		return line, errors.New(`it is not a snapshot of an emulator: "reset" is missing`)
	}
	if line.Clock < 0 || line.Clock > int64(maxAdvance) {
		return line, errors.New("the clock is out of range")
	}
	for _, c := range line.Conversations {
		if c.ID == "" {
			return line, errors.New("a conversation has no id")
		}
	}
	return line, nil
}

// maxSnapshot is the largest snapshot, in bytes, that PUT accepts.
const maxSnapshot = 256 << 20

func (e *Emulator) postReset(w http.ResponseWriter, _ *http.Request) { done(e.Reset()).write(w) }

func (e *Emulator) getSnapshot(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := e.Snapshot(&b); err != nil {
		internal(err).write(w)
		return
	}
	reply{status: http.StatusOK, body: b.Bytes()}.write(w)
}

func (e *Emulator) putSnapshot(w http.ResponseWriter, r *http.Request) {
	if err := e.Restore(http.MaxBytesReader(w, r.Body, maxSnapshot)); err != nil {
		badRequest(err.Error()).write(w)
		return
	}
	done(nil).write(w)
}
