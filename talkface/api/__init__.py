"""What `import talkface` offers, one file a function; the commands are thin over these."""
