package config

// Sample is a commented config file for a root and a knowledge base: every
// setting with its default, those that have to be filled in, and the rest
// commented out. Without a knowledge base its line is left open, and Parse
// asks for it.
func Sample(root string, knowledgeBase int64) []byte { return nil }
