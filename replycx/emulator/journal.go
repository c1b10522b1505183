package emulator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// journal is the file of accepted requests: a line of JSON for each upload, removal
// and reset, and each change of a conversation, a webhook or the clock. It is not synced to the disk: it
// survives the end of the process, but not always a crash of the machine.
type journal struct {
	file *os.File
	read int64 // the offset up to which the file is in memory
	// torn is set if an incomplete line follows that offset. Another process may be
	// writing it, so it is truncated only before the next append.
	torn bool
}

// journalLine holds changes, in the order of its fields.
type journalLine struct {
	// Reset is set if the line begins with the fixture's data. A snapshot is such a
	// line.
	Reset         bool           `json:"reset,omitempty"`
	Sources       []source       `json:"sources,omitempty"`
	Conversations []conversation `json:"conversations,omitempty"`
	Webhooks      []webhook      `json:"webhooks,omitempty"`
	Removed       []int64        `json:"removed,omitempty"` // ids
	// Clock is the duration by which the clock is ahead, in nanoseconds, 0 if the line
	// does not change it.
	Clock int64 `json:"clock,omitempty"`
}

// apply makes the changes of a line in memory. The caller holds e.mu, except New.
func (e *Emulator) apply(line journalLine) {
	if line.Reset {
		e.sources = nil
		e.clock.advanced.Store(0)
		e.deliveries.unset()
		e.startConversations()
	}
	e.sources = append(e.sources, line.Sources...)
	for _, c := range line.Conversations {
		e.store(c)
	}
	for _, h := range line.Webhooks {
		e.deliveries.set(h)
	}
	e.remove(line.Removed)
	if line.Clock != 0 {
		e.clock.advanced.Store(line.Clock)
	}
}

func openJournal(name string) (*journal, error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("open emulator file: %w", err)
	}
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open emulator file: %w", err)
	}
	return &journal{file: file}, nil
}

// write appends a line to the journal, if there is one. The caller holds e.mu.
func (e *Emulator) write(line journalLine) error {
	if e.journal == nil {
		return nil
	}
	if err := e.catchUp(); err != nil {
		return err
	}
	return e.journal.append(line)
}

// append writes a line in a single write. It truncates a line that was not written
// completely.
func (j *journal) append(line journalLine) error {
	data, err := json.Marshal(line)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if j.torn {
		if err := j.file.Truncate(j.read); err != nil {
			return fmt.Errorf("write emulator file: %w", err)
		}
		j.torn = false
	}
	if _, err := j.file.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write emulator file: %w", err), j.file.Truncate(j.read))
	}
	j.read += int64(len(data))
	return nil
}

// catchUp reads the lines of the file that are not yet in memory: all lines at first,
// then those of another process. It ignores an incomplete last line, which a killed
// process may have left. The caller holds e.mu, except New.
func (e *Emulator) catchUp() error {
	j := e.journal
	if j == nil {
		return nil
	}
	info, err := j.file.Stat()
	if err != nil {
		return fmt.Errorf("read emulator file: %w", err)
	}
	if info.Size() <= j.read {
		return nil
	}
	in := bufio.NewReaderSize(io.NewSectionReader(j.file, j.read, info.Size()-j.read), 64<<10)
	for {
		data, err := in.ReadBytes('\n')
		if err == io.EOF {
			j.torn = len(data) > 0
			return nil
		}
		if err != nil {
			return fmt.Errorf("read emulator file: %w", err)
		}
		var line journalLine
		if err := json.Unmarshal(bytes.TrimSpace(data), &line); err != nil {
			return fmt.Errorf("read emulator file %s at byte %d: %w", j.file.Name(), j.read, err)
		}
		e.apply(line)
		j.read += int64(len(data))
	}
}
