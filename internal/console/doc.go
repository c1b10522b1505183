// Package console prints results, the log and the progress of a command. It knows neither commands nor exit codes.
//
//   - Results go to stdout as text, JSON or CSV. The log, notes and errors go to stderr.
//   - A quiet console prints only warnings, errors and JSON or CSV results.
//   - A terminal on stderr shows progress bars. Any other stderr gets log lines. Output has no colours, so NO_COLOR changes
//     nothing.
//   - Printable and Quoted escape foreign text (file names, messages of a server), so that it cannot move the cursor of a
//     terminal or forge a line.
//   - Both streams replace each secret that Hide was given.
//
// console.go has the Console; rows.go prints tables, JSON and CSV; text.go formats text; progress.go shows the progress;
// redact.go replaces secrets.
package console
