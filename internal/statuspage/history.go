package statuspage

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// tableSamples is the number of samples in the table of the page. The JSON has all.
const tableSamples = 60

// A sampleView is how a sync stood at a minute.
type sampleView struct {
	At        time.Time `json:"at"`
	Completed int       `json:"completed"`
	Waiting   int       `json:"waiting"` // pending and uploading
	Training  int       `json:"training"`
	Troubled  int       `json:"troubled"` // failed, stuck and uncertain
	Skipped   int       `json:"skipped"`
	// LagSeconds is the age of the earliest change of a document that was not completed.
	LagSeconds float64 `json:"lag_seconds"`
	// Trained are the sources whose training ended since the sample before. TrainingSeconds is the mean time that it took.
	Trained         int     `json:"trained"`
	TrainingSeconds float64 `json:"training_seconds"`
}

// A historyList are the samples of a sync, the oldest first.
type historyList struct {
	Sync    string       `json:"sync"`
	Samples []sampleView `json:"samples"`
}

func (p *Page) findHistory(r *http.Request) (list historyList, names []string, err error) {
	v, err := parameters(r, "sync")
	if err != nil {
		return list, nil, err
	}
	s, names, err := p.chosenSync(r.Context(), v.Get("sync"))
	if err != nil {
		return list, names, err
	}
	list = historyList{Sync: s.Name, Samples: []sampleView{}}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	samples, err := p.opts.State.Syncs.Samples(ctx, s.ID)
	for _, x := range samples {
		view := sampleView{
			At: x.At, Completed: x.Completed, Waiting: x.Waiting, Training: x.Training, Troubled: x.Troubled, Skipped: x.Skipped,
			LagSeconds: x.Lag.Seconds(), Trained: x.Trained,
		}
		if x.Trained > 0 {
			view.TrainingSeconds = x.TrainingTime.Seconds() / float64(x.Trained)
		}
		list.Samples = append(list.Samples, view)
	}
	return list, names, err
}

type historyData struct {
	frame
	Sync, JSON string
	SyncNames  []string
	Samples    []sampleView // the latest first
}

func (p *Page) serveHistory(w http.ResponseWriter, r *http.Request) {
	list, names, err := p.findHistory(r)
	if err != nil {
		p.refusePage(w, err)
		return
	}
	data := &historyData{
		frame: p.frame("History", "history"), Sync: list.Sync, SyncNames: names, JSON: link("/history.json", "sync", list.Sync),
		Samples: slices.Clone(list.Samples[max(len(list.Samples)-tableSamples, 0):]),
	}
	slices.Reverse(data.Samples)
	data.HasPlots = len(data.Samples) > 0
	p.render(w, http.StatusOK, "history", data)
}

func (p *Page) serveHistoryJSON(w http.ResponseWriter, r *http.Request) {
	list, _, err := p.findHistory(r)
	respondJSON(w, list, err)
}
