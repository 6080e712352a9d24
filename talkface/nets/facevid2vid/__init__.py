"""Face-vid2vid: one picture of a person and the keypoints of another's motion to pictures of that person moving.

After "One-Shot Free-View Neural Talking-Head Synthesis for Video Conferencing" (Wang et al., CVPR 2021), which
DREAM-Talk 3.4 and MagicTalk 3.4 use. Parameters are named as in the public checkpoints of the open implementation
(zhanglonghao1992), so that those load strictly.
"""
