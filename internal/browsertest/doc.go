// Package browsertest tests the pages of kbsync in Chromium. It has no code of its own.
package browsertest
