package defects

// A defect is a change of the code that a test must find.
type defect struct {
	name     string
	file     string // from the module's root
	old, new string // old stands in the file once
	pkg      string // of the test
	test     string
	flags    []string // of the test program
	quick    bool     // planted in every run of the tests
}

var defects = []defect{
	{
		name: "a dropped commit", file: "state/writer.go",
		old: `if err = t.command("COMMIT"); err == nil {`,
		new: `if err = t.command("ROLLBACK"); err == nil {`,
		pkg: "state", test: "TestNothingIsLostOrDoubled", flags: []string{"-rapid.nofailfile"},
	}, {
		name: "a skipped seal", file: "ingest/upload.go",
		old: `if err := u.journal.Seal(ctx, q.upload, seals); err != nil {`,
		new: `if err := error(nil); err != nil {`,
		pkg: "ingest", test: "TestRunUploadsEachContentOnce",
	}, {
		name: "a removed fence", file: "state/seal.go",
		old: `if err := s.owns(t, u.owner); err != nil {`,
		new: `if err := error(nil); err != nil {`,
		pkg: "state", test: "TestPausedProcessSealsNothingAndItsAnswerIsRecorded",
	}, {
		name: "an off-by-one in the merge", file: "watcher/diff.go",
		old: `for c.hasKnown && c.known.Key < e.Key {`,
		new: `for c.hasKnown && c.known.Key <= e.Key {`,
		pkg: "watcher", test: "TestDiffOps", quick: true,
	}, {
		name: "an unescaped quote", file: "replycx/body.go",
		old: `if r < ' ' || r == 0x7f || r == '"' || r == '\\' {
			b = append`,
		new: `if r < ' ' || r == 0x7f || r == '\\' {
			b = append`,
		pkg: "replycx", test: "TestHardNamesPython",
	}, {
		name: "a swallowed listing error", file: "watcher/diff.go",
		old: `	if err != nil {
		c.yield(Pair{}, err)
		return false
	}
	c.previous, c.hasEntry = e.Key, true`,
		new: `	if err != nil {
		return false
	}
	c.previous, c.hasEntry = e.Key, true`,
		pkg: "watcher", test: "TestDiffEndsEarly",
	}, {
		name: "documents that vanish where the listing is incomplete", file: "watcher/diff.go",
		old: `		c.incomplete = true
`,
		new: ``,
		pkg: "watcher", test: "TestDiffEndsEarly",
	}, {
		name: "a lost event", file: "watcher/dirty.go",
		old: `		prefix = dir
`,
		new: `		return
`,
		pkg: "watcher", test: "TestDirtySetCoversEveryAddedKey", flags: []string{"-rapid.nofailfile"},
	}, {
		name: "a missed wake", file: "internal/engine/schedule.go",
		old: `times = []time.Time{s.againAt, s.next, s.relistAt}`,
		new: `times = []time.Time{s.againAt, s.next}`,
		pkg: "internal/engine", test: "TestPartThatWasNotListedAfterAnEventIsScannedAgain",
	}, {
		name: "a wrong status word", file: "tracker/decide.go",
		old: `case word.Is(replycx.StatusCompleted):`,
		new: `case word.Is("complete"):`,
		pkg: "tracker", test: "TestRunFollowsEverySourceToItsOutcome",
	}, {
		name: "a leak", file: "state/sqlite.go",
		old: `	close(s.stop)
	s.stopped.Wait()
`,
		new: ``,
		pkg: "cmd/kbsync", test: "TestRunLeavesNoGoroutine",
	}, {
		name: "an outcome not recorded on recovery", file: "state/ending.go",
		old: `if b.state == batchSealed {
			e = ending{state: batchUncertain,`,
		new: `if b.state == batchSealed && b.resendOf > 0 {
			e = ending{state: batchUncertain,`,
		pkg: "state", test: "TestRecoverEndsWhatAKilledProcessLeft",
	}, {
		name: "an id trusted twice", file: "state/answer.go",
		old: `a.shared[src.ID] = true`,
		new: `a.shared[src.ID] = false`,
		pkg: "state", test: "TestLyingAnswersMoveNoRowAndCompleteNothing",
	}, {
		name: "a lease not renewed", file: "state/lease.go",
		old: `held, err := l.renew(o)`,
		new: `held, err := true, error(nil)`,
		pkg: "state", test: "TestProcessThatIsCutOffLosesItsLease",
	}, {
		name: "a renewal without its condition", file: "state/lease.go",
		old: `
		WHERE id = $2
		  AND expires_at > {db.now}` + "`, []any{l.length",
		new: `
		WHERE id = $2` + "`, []any{l.length",
		pkg: "state", test: "TestLeaseThatHasRunOutIsNotRenewed",
	}, {
		name: "an answer recorded in another batch", file: "state/answer.go",
		old: `
		WHERE id = $4
		  AND batch_id = $5
		  AND state`,
		new: `
		WHERE id = $4
		  AND batch_id + $5 > 0
		  AND state`,
		pkg: "state", test: "TestAnswerOfALostRequestThatComesAfterItWasSentAgain",
	}, {
		name: "a release under a claim that was lost", file: "state/queue.go",
		old: `AND claim = $4` + "`, failed",
		new: `AND claim <> -$4` + "`, failed",
		pkg: "state", test: "TestActionOnALostClaimChangesNothing",
	}, {
		name: "a seal under a claim that was lost", file: "state/seal.go",
		old: `AND documents.claim = v.column2`,
		new: `AND documents.claim <> -v.column2`,
		pkg: "state", test: "TestActionOnALostClaimChangesNothing",
	}, {
		name: "a marker not written", file: "internal/engine/marker.go",
		old: `if err := m.write(path); err != nil {`,
		new: `if err := error(nil); err != nil {`,
		pkg: "internal/engine", test: "TestEachMarkerHaltsAnotherState",
	}, {
		name: "a rule matched in one Unicode form", file: "watcher/name.go",
		old: `return norm.NFC.String(strings.Map(foldRune, norm.NFD.String(s)))`,
		new: `return strings.Map(foldRune, s)`,
		pkg: "watcher", test: "TestGlobCases",
	}, {
		name: "an ending lost", file: "state/verdict.go",
		old: `failed[string(ending)] = true`,
		new: `failed[""] = true`,
		pkg: "state", test: "TestFailureIsOfTheEndingItWasSentUnder",
	}, {
		name: "a second token accepted", file: "internal/statuspage/access.go",
		old: `return subtle.ConstantTimeCompare(a[:], b[:]) == 1`,
		new: `return subtle.ConstantTimeCompare(a[:], b[:]) == 1 || given != ""`,
		pkg: "internal/statuspage", test: "TestAccess",
	}, {
		name: "a retry without jitter", file: "internal/retry/retry.go",
		old: `return time.Duration(float64(bound) * (p.Low + random*(p.High-p.Low)))`,
		new: `return bound`,
		pkg: "internal/retry", test: "TestJitterStaysInItsRange", quick: true,
	}, {
		name: "a stale claim", file: "state/ending.go",
		old: `SET state = {doc.pending}, claim = 0
		WHERE sync_id = $1
		  AND state < {doc.linked}
		  AND state = {doc.claimed}`,
		new: `SET state = {doc.pending}, claim = 0
		WHERE sync_id = $1
		  AND state > {doc.linked}
		  AND state = {doc.claimed}`,
		pkg: "state", test: "TestRecoverEndsWhatAKilledProcessLeft",
	}, {
		name: "a recovery that sends failed documents again", file: "state/ending.go",
		old: `
		  AND state = {doc.claimed}
		  AND ` + "`+ownerIsDead(claimOwner",
		new: `
		  AND ` + "`+ownerIsDead(claimOwner",
		pkg: "state", test: "TestRecoveryLeavesRefusedDocumentsFailed",
	}, {
		name: "a second probe of an open breaker", file: "state/ending.go",
		old: `AND probe_batch = $2` + "`, b.destination",
		new: `AND probe_batch <> -$2` + "`, b.destination",
		pkg: "state", test: "TestEndOfAnotherBatchLeavesTheProbe",
	}, {
		name: "a probe of a closed breaker", file: "state/journal.go",
		old: `err != nil || streak == 0 {`,
		new: `err != nil || streak < 0 {`,
		pkg: "state", test: "TestProbeThatCameTooLateHoldsBackNoOther",
	}, {
		name: "a source taken from the last batch of its content", file: "state/answer.go",
		old: `AND sources.batch_id IN (c.batch_id, c.prior_batch))`,
		new: `AND sources.batch_id = c.prior_batch)`,
		pkg: "state", test: "TestLateAnswerWithTheSourceOfTheSecondRequestKeepsItsOutcome",
	}, {
		name: "the mark of a reindex on a newer version", file: "state/outcome.go",
		old: `SET forced = 1
			WHERE id = $1
			  AND state = {doc.linked}`,
		new: `SET forced = 1
			WHERE id = $1`,
		pkg: "state", test: "TestRefusedReindexOfADocumentThatHasChangedMarksNothing",
	}, {
		name: "a reopened document that reopens all that have failed", file: "state/queue.go",
		old: `AND id = (SELECT content_id FROM documents WHERE id = $1 AND state = {doc.linked})` + "`, id",
		new: `AND $1 > 0` + "`, id",
		pkg: "state", test: "TestReopenLeavesOtherDocuments",
	}, {
		name: "a lost claim taken for a sealed document", file: "state/seal.go",
		old: `				WHERE id = $1
				  AND state = {doc.linked}
				  AND content_id = $2`,
		new: `				WHERE id = $1
				  AND content_id = $2`,
		pkg: "state", test: "TestSealOnALostClaimNamesTheDocument",
	}, {
		name: "a document removed that an earlier scan has marked", file: "state/scans.go",
		old: `		WHERE sync_id = $2
		  AND vanished = $3
		  AND vanished <> 0`,
		new: `		WHERE sync_id = $2
		  AND vanished <= $3
		  AND vanished <> 0`,
		pkg: "state", test: "TestCountOfAScan",
	}, {
		name: "a lease that its own process cannot take again", file: "state/lease.go",
		old: `WHERE leases.owner_id = excluded.owner_id
			   OR`,
		new: `WHERE`,
		pkg: "state", test: "TestLeaseThatIsLeftIsTakenAgain",
	}, {
		name: "a lease that stays with a process that does not use it", file: "state/lease.go",
		old: `		p.leases.clear(sync, o) // the commit may not have been seen`,
		new: ``,
		pkg: "state", test: "TestLeaseThatIsLeftIsGivenUp",
	}, {
		name: "a recovery that does not wait for a claim", file: "state/ending.go",
		old: `	if err := t.session.lockRow(` + "`SELECT 1 FROM syncs WHERE id = $1`" + `, syncID); err != nil {
		return 0, err
	}
`,
		new: ``,
		pkg: "state", test: "TestClaimWhoseCommitComesLateIsRecovered",
	}, {
		name: "claims that stay with a process after a reload", file: "internal/engine/daemon.go",
		old: `			d.recoverLeft(ctx)
`,
		new: ``,
		pkg: "internal/engine", test: "TestClaimOfASyncThatLeftTheConfigIsGivenBack",
	}, {
		name: "recovery of another sync", file: "state/ending.go",
		old: `		FROM batches
		WHERE sync_id = $1
		  AND state < {batch.answered}`,
		new: `		FROM batches
		WHERE $1 > 0
		  AND state < {batch.answered}`,
		pkg: "state", test: "TestSyncsOfOneStateShareNothing",
	}, {
		name: "one inventory for two APIs", file: "state/syncs.go",
		old: `		WHERE origin = $1
		  AND knowledge_base = $2`,
		new: `		WHERE $1 <> ''
		  AND knowledge_base = $2`,
		pkg: "state", test: "TestUnknownAccountIsFilledIn",
	}, {
		name: "a page of a gateway taken for an object", file: "watcher/cloud_object.go",
		old: `	case version == "":
		return errNoVersion
`,
		new: `	case version == "":
		return nil
`,
		pkg: "watcher", test: "TestOnlyAnotherVersionOfAnObjectIsAChange",
	},
}
