package emulator

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// journal is the file of accepted requests: a line of JSON for each upload, each
// removal, and each change of a conversation or a webhook. It is not synced to the disk: it
// survives the end of the process, but not always a crash of the machine.
type journal struct {
	file *os.File
	read int64 // the offset up to which the file is in memory
	// torn is set if an incomplete line follows that offset. Another process may be
	// writing it, so it is truncated only before the next append.
	torn bool
}

type journalLine struct {
	Sources      []journalSource `json:"sources,omitempty"`
	Conversation *conversation   `json:"conversation,omitempty"`
	Webhook      *webhook        `json:"webhook,omitempty"`
	Removed      []int64         `json:"removed,omitempty"` // ids
}

type journalSource struct {
	source
	Digest string `json:"sha256"`
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

func sourcesLine(sources []source) journalLine {
	line := journalLine{Sources: make([]journalSource, len(sources))}
	for i, s := range sources {
		line.Sources[i] = journalSource{source: s, Digest: hex.EncodeToString(s.SHA256[:])}
	}
	return line
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
		for _, s := range line.Sources {
			digest, err := hex.DecodeString(s.Digest)
			if err != nil || copy(s.SHA256[:], digest) != len(s.SHA256) {
				return fmt.Errorf("read emulator file %s at byte %d: bad hash", j.file.Name(), j.read)
			}
			e.sources = append(e.sources, s.source)
		}
		if line.Conversation != nil {
			e.store(*line.Conversation)
		}
		if line.Webhook != nil {
			e.deliveries.set(*line.Webhook)
		}
		e.remove(line.Removed)
		j.read += int64(len(data))
	}
}
