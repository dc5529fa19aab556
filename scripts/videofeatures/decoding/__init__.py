"""From a video to frames and clips. All that knows ffmpeg and libav stands here."""
