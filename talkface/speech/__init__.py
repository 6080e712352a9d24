"""What several parts need of sound: how loud it is, its cepstra, and who speaks when."""
