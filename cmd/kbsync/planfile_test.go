package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/kbsync/kbsync/internal/engine"
	"github.com/kbsync/kbsync/state"
)

// FuzzPlan decodes any bytes as a plan. What decodePlan takes must be a plan that can be kept again, and compared.
func FuzzPlan(f *testing.F) {
	plan := planFile{
		Format: planFormat, CreatedAt: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), Inventory: "inventory",
		Arguments: []string{"docs"}, Settings: map[string][]string{"knowledge-base": {"876"}, "exclude": {"a", "b"}},
		Syncs: []*syncPlan{{
			Sync: "docs", Root: "/docs", Upload: 2, LeftBehind: []plannedSource{{1, "a.md", "changed"}}, Skipped: map[string]int{"too large": 1},
			Documents: []planItem{
				newPlanItem("docs", engine.PlanItem{Action: engine.ActionUpload, Key: "a.md", Fingerprint: state.Fingerprint{MTime: 1, CTime: 2, Inode: 3}}),
				newPlanItem("docs", engine.PlanItem{Action: engine.ActionRemove, Key: "b\xff.md"}),
			},
		}},
	}
	var real bytes.Buffer
	if err := plan.encode(&real); err != nil {
		f.Fatal(err)
	}
	f.Add(real.Bytes())
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"kbsync_plan": 1}`, `{"kbsync_plan": 2}`, `{"kbsync_plan": 1, "syncs": [null]}`, `{"kbsync_plan": 1, "syncs": [{}, {}]}`,
		`{"kbsync_plan": 1, "syncs": [{"documents": [{"key_bytes": ""}, {"key": "a"}, {"key": "a", "action": "upload"}]}]}`,
		`{"kbsync_plan": 1, "settings": {"api-url": ["http://localhost"]}}`, `{"kbsync_plan": 1, "settings": {"include": null}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		plan, err := decodePlan(data)
		if err != nil {
			if plan != nil {
				t.Fatalf("decodePlan = %v, %q", plan, err)
			}
			return
		}
		var first, second bytes.Buffer
		if err := plan.encode(&first); err != nil {
			t.Fatal(err)
		}
		again, err := decodePlan(first.Bytes())
		if err != nil {
			t.Fatalf("a plan that was kept again: %v\n%s", err, first.Bytes())
		}
		if err := again.encode(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("kept again, %v:\n%s\n%s", err, first.Bytes(), second.Bytes())
		}
		names := map[string]bool{}
		for _, s := range plan.Syncs {
			names[s.Sync] = true
		}
		if err := comparePlans(plan, again); err != nil && len(names) == len(plan.Syncs) {
			t.Fatalf("a plan differs from itself: %v", err)
		}
		if err := comparePlans(plan, &planFile{}); err == nil && len(plan.Syncs) > 0 {
			t.Fatal("a plan fits although its sync is gone")
		}
	})
}

func TestPlanSetsOnlySettingsOfASync(t *testing.T) {
	for flag, want := range map[string]bool{
		"knowledge-base": true, "include": true, "max-size": true, "upload-name": true,
		"api-url": false, "token-file": false, "state": false, "touch-file": false, "metrics-file": false, "listen": false, "no-such-flag": false,
	} {
		plan, err := decodePlan([]byte(`{"kbsync_plan": 1, "settings": {"` + flag + `": ["x"]}}`))
		if got := err == nil; got != want || got != (plan != nil) {
			t.Errorf("a plan with --%s: %v, taken is %v, want %v", flag, err, got, want)
		}
	}
}
