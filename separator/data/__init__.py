"""Songs on the disk become training batches.

On its way from a folder to a batch a sample passes six files:

1. `library/walk` lists the audio files of a folder;
2. `layouts/`, one module for each layout, groups them into songs with stems and a split;
3. `tracks` reads their headers and decides which songs train and which validate;
4. `reader` decodes a segment of a song at the model's rate, in stereo;
5. `dataset` draws, reads and stacks segments, in worker processes;
6. `augment` varies the stems of a batch.

The other files hold no samples on this way. They answer one question each: `roots` how
`data.roots` is written, `stem_files` which stem a file is, `splits` which songs are held out,
`sampling` which segment a number stands for, `stem_cache` where MUSDB18's decoded stems are,
`workers` how a batch gets to the training process.
"""
